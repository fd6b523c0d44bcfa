// Opens the runs behind a number: its anchor in the address names it.
(() => {
  const data = window.tableData;
  const dialog = document.getElementById("run");
  const { element } = window;
  const { draw, format } = window.plots;

  function terms(pairs) {
    return element("dl", pairs.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  }

  function folded(title, text) {
    return element("details", [element("summary", title), element("pre", element("code", text))]);
  }

  const distinct = values => [...new Set(values.filter(value => value !== undefined && value !== null && value !== ""))];
  const seconds = value => (value >= 3600 ? `${(value / 3600).toFixed(1)} h` : value >= 60 ? `${(value / 60).toFixed(1)} min` : `${value.toFixed(1)} s`);

  function numbers(cell) {
    const lines = cell.results.map(result => {
      const metric = data.metrics[result.metric];
      const spread = result.std === null ? "" : ` ± ${format(result.std, metric)}`;
      const ours = result.mean === null ? cell.status : format(result.mean, metric) + spread + ` (n = ${result.n})`;
      const verdict = result.within === null ? "" : result.within ? ", within the tolerance" : ", beyond the tolerance";
      const paper = result.paper === null ? "" : `; paper ${format(result.paper, metric)}${verdict}`;
      return [metric.label, ours + paper];
    });
    return terms([...lines, ["scale", data.scale], ["data", cell.data]]);
  }

  function runs(cell) {
    const metrics = cell.results.filter(result => result.seeds.length);
    const heads = ["seed", ...metrics.map(result => data.metrics[result.metric].label), "status", "best step", "time"];
    const lines = cell.runs.map(({ record }) => {
      const values = metrics.map(result => {
        const found = result.seeds.find(([seed]) => seed === record.seed);
        return found ? format(found[1], data.metrics[result.metric]) : "–";
      });
      const cells = [String(record.seed), ...values, record.status, String(record.best_step ?? "–"), seconds(record.seconds)];
      return element("tr", cells.map(text => element("td", text)));
    });
    const head = element("thead", element("tr", heads.map(text => element("th", text))));
    return element("div", element("table", [head, element("tbody", lines)], { class: "runs" }), { class: "cells-frame" });
  }

  function provenance(cell) {
    const records = cell.runs.map(run => run.record);
    const checksums = distinct(records.flatMap(record =>
      Object.entries({ ...record.data.checksums, ...record.inputs?.data }).map(([file, sum]) => `${sum}  ${file}`)));
    const versions = distinct(records.flatMap(record => Object.entries(record.versions || {}).map(part => part.join(" "))));
    const commits = distinct(records.map(record => record.commit + (record.git_dirty ? " with uncommitted changes" : "")));
    const time = records.reduce((sum, record) => sum + record.seconds, 0);
    return [
      terms([
        ["commit", commits.join(", ")],
        ["device", distinct(records.map(record => record.device)).join(", ")],
        ["versions", versions.join(", ")],
        ["time", `${seconds(time)} for ${records.length} runs`],
        ["recorded", distinct(records.map(record => (record.finished || "").slice(0, 10))).join(", ")],
        ["data", distinct(records.map(record => `${record.data.name} (${record.data.kind})`)).join(", ")],
      ]),
      ...(checksums.length ? [folded("sha256 of the data files", checksums.join("\n"))] : []),
    ];
  }

  // Curves of one of the quantities that the runs recorded, chosen above them.
  function curves(cell) {
    const names = distinct(cell.runs.flatMap(run => Object.keys(run.curves))).filter(name => name !== "step");
    if (!names.length) return [];
    const usual = cell.runs[0].record.valid_metric;
    const choice = element("select", names.map(name => element("option", name)), { "aria-label": "Quantity" });
    choice.value = [usual, `valid/${usual}`].find(name => names.includes(name)) || names[0];
    const place = element("div", "", { class: "curves" });
    const show = () =>
      draw(place, colour => ({
        title: "",
        height: 280,
        showlegend: false,
        margin: { l: 8, r: 8, t: 8, b: 40 },
        xaxis: { title: { text: "step" } },
        yaxis: { title: { text: choice.value } },
        traces: cell.runs.map(({ record, curves }) => ({
          name: `seed ${record.seed}`, type: "scatter", mode: curves.step.length > 1 ? "lines" : "markers", x: curves.step, y: curves[choice.value] || [],
          line: { width: 1.3, color: colour("--plot-seeds") }, opacity: 0.75, hovertemplate: `seed ${record.seed}, step %{x}: %{y}<extra></extra>`,
        })),
      }));
    choice.addEventListener("input", show);
    return [element("h3", "Learning curves"), choice, place, show];
  }

  function content(name, cell) {
    const title = [cell.row, cell.column].filter(Boolean).join(", ");
    const close = element("button", "✕", { class: "close", "aria-label": "Close" });
    close.addEventListener("click", () => dialog.close());
    const parts = [close, element("h2", `${data.heading}: ${title}`), numbers(cell)];
    if (cell.runs.length) parts.push(...curves(cell), element("h3", "Runs"), runs(cell));
    else parts.push(element("p", data.recorded ? "No runs of this cell are among the committed records." : "Records not kept: the runs behind this number were not committed.", { class: "missing" }));
    if (cell.commands.length) parts.push(element("h3", "Command"), element("pre", element("code", cell.commands.join("\n")), { class: "command" }));
    if (cell.runs.length) {
      parts.push(element("h3", "Where they come from"), ...provenance(cell), element("h3", "Records"));
      parts.push(folded("configuration (of the first seed)", cell.config));
      for (const { record } of cell.runs) parts.push(folded(`record of seed ${record.seed}`, JSON.stringify(record, null, 1)));
    }
    return parts;
  }

  function open() {
    const anchor = decodeURIComponent(location.hash.slice(1));
    const found = Object.entries(data.cells).find(([, cell]) => cell.results.some(result => result.anchor === anchor));
    if (!found) return;
    const parts = content(...found);
    dialog.replaceChildren(...parts.filter(part => typeof part !== "function"));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    parts.filter(part => typeof part === "function").forEach(show => show());  // plots need their place's width
  }

  dialog.addEventListener("click", event => event.target === dialog && dialog.close());  // beside it
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  addEventListener("hashchange", open);
  open();
})();
