// Sorts and filters the table of cells.
(() => {
  const table = document.getElementById("numbers");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = document.getElementById("filter");
  const choices = [...document.querySelectorAll(".filters select")];
  const count = document.getElementById("count");

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase() + " " + row.id;
      const chosen = choices.every(({ value, dataset }) => !value || row.cells[dataset.column].textContent === value);
      row.hidden = !(chosen && wanted.every(word => text.includes(word)));
    }
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  }

  function compare(column, sign) {
    return (first, second) => {
      const [a, b] = [first, second].map(row => row.cells[column]);
      if (a.dataset.key === undefined) return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
      if (a.dataset.key === "" || b.dataset.key === "") return (a.dataset.key === "") - (b.dataset.key === "");  // last
      return sign * (Number(a.dataset.key) - Number(b.dataset.key));
    };
  }

  function sort(head) {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...[...rows].sort(compare(head.cellIndex, ascending ? 1 : -1)));
  }

  for (const head of table.tHead.rows[0].cells) head.firstChild.addEventListener("click", () => sort(head));
  for (const field of [words, ...choices]) field.addEventListener("input", filter);
  filter();
})();
