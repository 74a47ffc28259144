// A square to draw on. Strokes are kept as SIZE x SIZE grey pixels; Python makes a digit of them as MNIST has them.
const SHOWN = 252; // CSS pixels
const SEND_EVERY = 60; // milliseconds

function render({ model, el }) {
  const SIZE = model.get("size");
  el.classList.add("ck-pad");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  Object.assign(canvas.style, {
    width: SHOWN + "px", height: SHOWN + "px", touchAction: "none", cursor: "crosshair", borderRadius: "8px",
    background: "#000", display: "block", imageRendering: "auto",
  });
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  const name = () => canvas.setAttribute("aria-label", model.get("label"));
  name();
  el.append(canvas);

  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.lineCap = pen.lineJoin = "round";
  const clear = () => { pen.fillStyle = "#000"; pen.fillRect(0, 0, SIZE, SIZE); };
  clear();

  let timer = 0, lastSent = "";
  const send = () => {
    timer = 0;
    const pixels = pen.getImageData(0, 0, SIZE, SIZE).data;
    const grey = new Uint8Array(SIZE * SIZE);
    for (let i = 0; i < grey.length; i++) grey[i] = pixels[4 * i];
    let code = 0;
    for (let i = 0; i < grey.length; i++) code = (code * 31 + grey[i]) | 0;
    if (String(code) === lastSent) return; // only what changed is sent
    lastSent = String(code);
    model.set("bitmap", new DataView(grey.buffer));
    model.save_changes();
  };
  const later = () => { if (!timer) timer = setTimeout(send, SEND_EVERY); };

  let last = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * SIZE / box.width, (event.clientY - box.top) * SIZE / box.height];
  };
  const stroke = (to) => {
    pen.strokeStyle = "#fff";
    pen.lineWidth = model.get("pen") * SIZE;
    pen.beginPath();
    pen.moveTo(...(last ?? to));
    pen.lineTo(...to);
    pen.stroke();
    last = to;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    if (model.get("showing_digit")) { // a new stroke starts a new drawing
      clear();
      model.set("showing_digit", false);
    }
    last = null;
    stroke(place(event));
    later();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) stroke(place(each));
    later();
  });
  const lift = () => { last = null; };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== "Delete" && event.key !== "Backspace") return;
    event.preventDefault();
    event.stopPropagation();
    clear();
    model.set("showing_digit", false);
    later();
  });

  const fill = (bytes) => {
    if (bytes.byteLength !== SIZE * SIZE) return;
    const image = pen.createImageData(SIZE, SIZE);
    for (let i = 0; i < SIZE * SIZE; i++) {
      const grey = bytes.getUint8(i);
      image.data.set([grey, grey, grey, 255], 4 * i);
    }
    pen.putImageData(image, 0, 0);
  };
  const paint = () => { // Python put pixels there: a digit of the data set, or nothing
    clearTimeout(timer);
    timer = 0;
    last = null;
    lastSent = "";
    fill(model.get("painted"));
  };
  fill(model.get(model.get("showing_digit") ? "painted" : "bitmap")); // after a page reload, the drawing as it was
  model.on("msg:custom", paint);
  model.on("change:label", name);
  return () => {
    clearTimeout(timer);
    model.off("msg:custom", paint);
    model.off("change:label", name);
  };
}
export default { render };
