// Draws how much of the gap each rule closes, and at which cost.
(() => {
  const { points, page } = window.rulesData;
  const { draw } = window.plots;
  const columns = [...new Set(points.map(point => point.column))];
  const family = column => column + (points.some(point => point.column === column && point.stand_in) ? " (stand-in)" : "");
  const palette = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f", "#76b7b2", "#edc948"];
  const say = point => `${point.rule}, ${point.column}: ${point.mean.toFixed(2)}${point.std === null ? "" : ` ± ${point.std.toFixed(2)}`}`;
  const open = event => event.points[0].customdata && (location.href = `${page}#${event.points[0].customdata}`);

  function traces(chosen, x, y, error) {
    return columns.map((column, place) => {
      const found = chosen.filter(point => point.column === column);
      return {
        name: family(column), type: "scatter", mode: "markers", x: found.map(x), y: found.map(y), customdata: found.map(point => point.anchor),
        text: found.map(say), hoverinfo: "text", marker: { color: palette[place % palette.length], size: 10 },
        error_x: { type: "data", array: error ? found.map(error) : [], thickness: 1, width: 0, color: palette[place % palette.length] },
      };
    }).filter(trace => trace.x.length);
  }

  // Rules from the best mean share to the worst; what is below -0.5 is shown at the edge.
  const clipped = value => Math.max(value, -0.5);
  const rules = [...new Set(points.map(point => point.rule))];
  const share = rule => {
    const own = points.filter(point => point.rule === rule);
    return own.reduce((sum, point) => sum + clipped(point.mean), 0) / own.length;
  };
  const order = [...rules].sort((a, b) => share(a) - share(b));
  const closed = document.getElementById("closed");
  draw(closed, colour => ({
    title: "",
    height: 140 + 26 * rules.length,
    showlegend: true,
    margin: { l: 8, r: 8, t: 8, b: 40 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    xaxis: { title: { text: "share of the gap closed" }, range: [-0.55, 1.2] },
    yaxis: { type: "category", categoryorder: "array", categoryarray: order },
    shapes: [0, 1].map(x => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colour("--plot-seeds"), width: 1 } })),
    traces: traces(points, point => clipped(point.mean), point => point.rule, point => point.std || 0),
  })).then(() => closed.on("plotly_click", open));

  const cost = document.getElementById("cost");
  const costed = points.filter(point => point.cost !== null);
  const measured = order.filter(rule => costed.some(point => point.rule === rule));
  draw(cost, colour => ({
    title: "",
    height: 140 + 26 * measured.length,
    showlegend: true,
    margin: { l: 8, r: 8, t: 8, b: 40 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    xaxis: { title: { text: "time of a step, backpropagation = 1" }, rangemode: "tozero" },
    yaxis: { type: "category", categoryorder: "array", categoryarray: measured },
    shapes: [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: colour("--plot-seeds"), width: 1 } }],
    traces: traces(costed, point => point.cost, point => point.rule).map(trace => ({
      ...trace, text: trace.x.map((value, place) => `${trace.y[place]}, ${trace.name}: ${value.toFixed(2)}`),
    })),
  })).then(() => cost.on("plotly_click", open));
})();
