// One promise a page: the first chart asks its kernel for plotly.js, all others wait for the same.
const KEY = "__compresskit_plotly";
const ENDS = ["pointerup", "pointercancel", "blur"];
const AXIS = /^[xy]axis\d*$/;

async function unpack(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const code = await new Response(stream).text();
  const wrapped = "const module={exports:{}};const exports=module.exports;const define=undefined;"
    + code + ";\nexport default module.exports;";
  const address = URL.createObjectURL(new Blob([wrapped], { type: "text/javascript" }));
  try {
    return (await import(/* webpackIgnore: true */ address)).default;
  } finally {
    URL.revokeObjectURL(address);
  }
}

function plotly(model) {
  const shared = (globalThis[KEY] ??= {});
  if (!shared.loaded) {
    shared.loaded = new Promise((resolve, reject) => Object.assign(shared, { resolve, reject }));
    shared.asked = 0;
    shared.loaded.catch(() => { delete globalThis[KEY]; });
  }
  const receive = (message, buffers) => {
    if (message.type === "failed") shared.reject(new Error(message.text));
    if (message.type !== "plotly" || shared.unpacking) return;
    shared.unpacking = true;
    unpack(buffers[0]).then(shared.resolve, shared.reject);
  };
  // A kernel that died owes an answer that never comes: after a while each chart asks its own.
  const ask = () => {
    if (shared.unpacking || Date.now() - shared.asked < 4000) return;
    shared.asked = Date.now();
    model.send({ type: "plotly" });
  };
  model.on("msg:custom", receive);
  const timer = setInterval(ask, 1000);
  ask();
  const done = () => { clearInterval(timer); model.off("msg:custom", receive); };
  shared.loaded.then(done, done);
  return shared.loaded;
}

// An axis that was zoomed stays so while the kernel gives it the same range; another range is news, and is shown.
function followRanges(layout) {
  for (const [name, axis] of Object.entries(layout))
    if (AXIS.test(name) && axis.range) axis.uirevision = JSON.stringify(axis.range);
  return layout;
}

// Plotly's own way back leads to the ranges that it drew first, where points that came later may not be.
function backToGiven(layout) {
  const axes = Object.entries(layout).filter(([name]) => AXIS.test(name));
  return Object.fromEntries(axes.map(([name, { range }]) =>
    range ? [name + ".range", [...range]] : [name + ".autorange", true]));
}

async function render({ model, el }) {
  el.classList.add("ck-chart");
  const size = () => { el.style.height = model.get("height") + "px"; };
  size();
  el.style.width = "100%";
  el.style.minWidth = "0";
  el.setAttribute("role", "figure");
  const name = () => el.setAttribute("aria-label", model.get("label"));
  name();
  const plot = document.createElement("div");
  plot.style.height = "100%";
  el.append(plot);

  let closed = false, Plotly;
  try {
    Plotly = await plotly(model);
  } catch (error) {
    plot.textContent = "The plot could not be loaded: " + error.message;
    return;
  }
  const reset = () => Plotly.relayout(plot, backToGiven(model.get("figure").layout));
  const home = { name: "reset", title: "Reset axes", icon: Plotly.Icons.home, click: reset };
  // Only one drawing at a time; while it runs, the newest state waits. So it does while a button is pressed on the
  // plot: a click or a drag under which the plot is drawn anew is lost.
  let drawing = false, again = false, pressed = false;
  const draw = async () => {
    if (drawing || pressed) { again = true; return; }
    drawing = true;
    try {
      do {
        again = false;
        if (closed) return;
        const { data, layout, config } = model.get("figure");
        const all = { ...followRanges(structuredClone(layout)), autosize: true, height: model.get("height") };
        const modeBarButtons = [[...config.modeBarButtons, home, "toImage"]];
        await Plotly.react(plot, structuredClone(data), all, { ...config, modeBarButtons });
        plot.dataset.drawn = String(1 + Number(plot.dataset.drawn || 0));
      } while (again && !pressed);
    } finally {
      drawing = false;
    }
  };
  const press = () => { pressed = true; };
  const release = () => setTimeout(() => {
    pressed = false;
    if (again) draw();
  });
  plot.addEventListener("pointerdown", press, true);
  for (const end of ENDS) window.addEventListener(end, release);
  const start = async () => {
    await draw();
    if (closed) return;
    plot.on("plotly_doubleclick", reset);
    plot.on("plotly_click", (event) => {
      const point = event.points[0];
      const shift = Boolean(event.event?.shiftKey);
      model.send({ type: "click", curve: point.curveNumber, point: point.pointNumber, shift });
    });
  };
  let width = 0;
  const watcher = new ResizeObserver(() => {
    if (el.clientWidth === 0 || el.clientWidth === width) return;
    const first = width === 0;
    width = el.clientWidth;
    if (first) start(); else if (plot.dataset.drawn) Plotly.Plots.resize(plot);
  });
  const update = () => { if (width) draw(); };
  const resize = () => { size(); update(); };
  model.on("change:figure", update);
  model.on("change:height", resize);
  model.on("change:label", name);
  watcher.observe(el);
  return () => {
    closed = true;
    watcher.disconnect();
    model.off("change:figure", update);
    model.off("change:height", resize);
    model.off("change:label", name);
    for (const end of ENDS) window.removeEventListener(end, release);
    // plotly answers a moving mouse 50 ms later, and needs the figure then, though it is off the page.
    setTimeout(() => Plotly.purge(plot), 1000);
  };
}
export default { render };
