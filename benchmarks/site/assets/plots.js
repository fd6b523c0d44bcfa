// Plots in the colours of the page: of the seeds, means and published numbers of a table, and of the runs of a cell.
(() => {
  const drawn = new Map();
  const colour = name => getComputedStyle(document.body).getPropertyValue(name).trim();

  function layout(more) {
    const text = colour("--md-default-fg-color") || "#000";
    const line = { gridcolor: colour("--plot-grid"), zerolinecolor: colour("--plot-grid"), automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 8, r: 8, t: 34, b: 40 },
      hoverlabel: { align: "left" },
      legend: { orientation: "h", y: 1, yanchor: "bottom", xanchor: "right", x: 1 },
      ...more,
      title: { text: more.title, font: { size: 14 }, x: 0, xanchor: "left", xref: "paper" },
      xaxis: { ...line, ...more.xaxis },
      yaxis: { ...line, ...more.yaxis },
    };
  }

  // `make` returns traces and layout, so that a plot can be made again in other colours.
  function draw(place, make) {
    drawn.set(place, make);
    const { traces, ...more } = make(colour);
    return Plotly.react(place, traces, layout(more), { displayModeBar: false, responsive: true });
  }

  new MutationObserver(() => {
    for (const [place, make] of drawn) place.isConnected ? draw(place, make) : drawn.delete(place);
  }).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });

  const format = (value, metric) => (value === null ? "–" : value.toFixed(metric.decimals));

  // One plot for every metric of every column: a line for each row.
  function seeds(data, metric, column) {
    const settings = data.metrics[metric];
    const rows = Object.values(data.cells)
      .filter(cell => cell.column === column)
      .map(cell => ({ cell, result: cell.results.find(result => result.metric === metric) }))
      .filter(({ result }) => result && (result.mean !== null || result.paper !== null));
    if (!rows.length) return null;
    const names = rows.map(({ cell }) => cell.row);
    const ours = rows.filter(({ result }) => result.mean !== null);
    const paper = rows.filter(({ result }) => result.paper !== null);
    const dots = ours.flatMap(({ cell, result }) => result.seeds.map(([seed, value]) => ({ cell, result, seed, value })));
    const anchors = places => places.map(({ result }) => result.anchor);
    return colour => ({
      title: column,
      height: (column ? 112 : 96) + 24 * rows.length,
      margin: { l: 8, r: 8, t: column ? 34 : 8, b: 40 },
      showlegend: true,
      xaxis: { title: { text: settings.label, font: { size: 11 } } },
      yaxis: { type: "category", categoryorder: "array", categoryarray: [...names].reverse(), range: [-0.6, names.length - 0.4] },
      traces: [
        {
          name: "seeds", type: "scatter", mode: "markers", x: dots.map(dot => dot.value), y: dots.map(dot => dot.cell.row),
          customdata: anchors(dots), text: dots.map(dot => `seed ${dot.seed}: ${format(dot.value, settings)}`), hoverinfo: "text+y",
          marker: { color: colour("--plot-seeds"), size: 7, opacity: 0.55 }, visible: dots.length ? true : "legendonly",
        },
        {
          name: "mean ± std", type: "scatter", mode: "markers", x: ours.map(({ result }) => result.mean), y: ours.map(({ cell }) => cell.row),
          customdata: anchors(ours), text: ours.map(({ result }) => `mean ${format(result.mean, settings)}, n = ${result.n}`), hoverinfo: "text+y",
          error_x: { type: "data", array: ours.map(({ result }) => result.std || 0), color: colour("--plot-ours"), thickness: 1.5, width: 4 },
          marker: { color: colour("--plot-ours"), size: 9, symbol: "diamond" },
        },
        ...(paper.length ? [{
          name: "paper", type: "scatter", mode: "markers", x: paper.map(({ result }) => result.paper), y: paper.map(({ cell }) => cell.row),
          customdata: anchors(paper), text: paper.map(({ result }) => `paper ${format(result.paper, settings)}`), hoverinfo: "text+y",
          marker: { color: colour("--plot-paper"), size: 11, symbol: "x-thin", line: { color: colour("--plot-paper"), width: 2.5 } },
        }] : []),
      ],
    });
  }

  function table(place, data) {
    const columns = [...new Set(Object.values(data.cells).map(cell => cell.column))];
    for (const metric of Object.keys(data.metrics)) {
      for (const column of columns) {
        const make = seeds(data, metric, column);
        if (!make) continue;
        const plot = place.appendChild(document.createElement("div"));
        draw(plot, make).then(() =>
          plot.on("plotly_click", event => {
            const anchor = event.points[0].customdata;
            if (anchor) location.hash = anchor;
          }),
        );
      }
    }
  }

  window.plots = { draw, format };
  if (window.tableData) table(document.getElementById("plots"), window.tableData);
})();
