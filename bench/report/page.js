// The charts, the enlarged figures and the sortable tables of the page; see `bench.report.page`.
// Run a script that is embedded as gzip data in base64; returns its exports.
async function load(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return import(`data:text/javascript;charset=utf-8,${encodeURIComponent(await new Response(plain).text())}`);
}

await load(scripts.vega);
const { ITable, set_or_remove_dark_class } = await load(scripts.datatables);
const dark = matchMedia("(prefers-color-scheme: dark)");
const { backends, data, charts } = JSON.parse(document.getElementById("charts").textContent);
const hidden = new Set();
for (const table of Object.values(data)) {
  table.rows = table.rows.map(row => Object.fromEntries(table.fields.map((field, i) => [field, row[i]])));
}

// The look of a chart: colours of the page's theme, and of its backends.
function config() {
  const style = getComputedStyle(document.documentElement);
  const [text, quiet, line] = ["--text", "--quiet", "--line"].map(name => style.getPropertyValue(name).trim());
  return {
    background: null, font: "system-ui, sans-serif", view: { stroke: null },
    axis: { labelColor: text, titleColor: quiet, gridColor: line, domainColor: line, tickColor: line,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelLimit: Math.min(180, innerWidth / 3.5) },
    legend: { labelColor: text, titleColor: quiet, labelFontSize: 12, titleFontSize: 12 },
    rule: { color: quiet },
  };
}

// A specification with the rows, scales and colours that the reader chose.
function specification(chart, choice) {
  const spec = structuredClone(chart.views[choice.unit]);
  const shown = backends.filter(backend => !hidden.has(backend.name));
  const rows = data[chart.data].rows.filter(row => !hidden.has(row.backend)
    && Object.keys(chart.choices).every(name => String(row[name]) === choice[name]));
  const order = [...new Set(rows.map(row => row.layer))];
  const count = field => new Set(rows.map(row => row[field])).size || 1;
  const { rows: field, lines, step } = spec.usermeta;
  // A group of lines has space for one more between it and the next.
  spec.height = count(field) * step * (lines ? count(lines) + 1 : 1);
  spec.data = { values: rows.map(row => ({ ...row, place: order.indexOf(row.layer) })) };
  const backend = {
    field: "backend", type: "nominal", legend: null,
    scale: { domain: shown.map(each => each.name), range: shown.map(each => dark.matches ? each.dark : each.light) },
  };
  for (const { mark, encoding } of spec.layer) {
    if (mark.type === "bar") {
      mark.stroke = config().axis.gridColor;
    } else {
      encoding.x.scale = choice.scale === "log" ? { type: "log", nice: false } : { type: "linear", zero: false };
      if (!("datum" in encoding.x)) encoding.color = backend;
    }
    if (encoding.shape) encoding.shape.scale = { domain: backend.scale.domain, range: shown.map(each => each.path) };
  }
  return { ...spec, config: config() };
}

async function draw(figure, chart) {
  const choice = Object.fromEntries(new FormData(figure.querySelector("form")));
  const options = { ast: true, renderer: "svg", actions: false, tooltip: { theme: dark.matches ? "dark" : "light" } };
  const place = figure.querySelector(".drawing");
  try {
    await vegaEmbed(place, specification(chart, choice), options);
  } catch (error) {
    place.textContent = `The chart could not be drawn: ${error.message}. The tables below have its numbers.`;
  }
}

const drawn = charts.map(chart => [document.getElementById(`chart-${chart.name}`), chart]);
const redraw = () => Promise.all(drawn.map(([figure, chart]) => draw(figure, chart)));
for (const [figure, chart] of drawn) {
  figure.querySelector("form").addEventListener("change", () => draw(figure, chart));
  figure.querySelector(".legend").addEventListener("click", event => {
    const name = event.target.closest("button")?.value;
    if (name === undefined) return;
    if (!hidden.delete(name)) hidden.add(name);
    for (const button of document.querySelectorAll(".legend button")) button.ariaPressed = !hidden.has(button.value);
    redraw();
  });
}
dark.addEventListener("change", redraw);
await redraw();

const large = document.querySelector("dialog");
for (const image of document.querySelectorAll("figure img")) {
  image.addEventListener("click", () => {
    const { src, alt } = image;
    Object.assign(large.querySelector("img"), { src, alt });
    large.className = image.parentElement.className;
    large.showModal();
  });
}
large.addEventListener("click", () => large.close());

set_or_remove_dark_class();
for (const table of document.querySelectorAll("table.display")) {
  const long = table.classList.contains("long");
  new ITable(table, {
    order: [], autoWidth: false, paging: long, info: long, searching: long, pageLength: 25,
    ordering: { indicators: true, handler: true },
    columnControl: long ? [["search"]] : [],
    columnDefs: long ? [{ targets: "few", columnControl: [["searchList"]] }] : [],
  });
}
document.documentElement.dataset.ready = "";
