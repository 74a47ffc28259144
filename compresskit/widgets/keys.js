// Undo and redo by the keys that everyone knows, wherever the focus is in the panel, but not in a text field: that has
// an undo of its own.
const TEXT = ["text", "search", "number", "email", "url", "password"];

function writes(target) {
  if (target.isContentEditable || target.tagName === "TEXTAREA") return true;
  return target.tagName === "INPUT" && TEXT.includes(target.type);
}

function wanted(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return null;
  const key = event.key.toLowerCase();
  if (key === "z") return event.shiftKey ? "redo" : "undo";
  return key === "y" && !event.shiftKey ? "redo" : null;
}

function render({ model, el }) {
  el.style.display = "none";
  let root = null;
  const press = (event) => {
    const what = wanted(event);
    if (!what || writes(event.target)) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ type: what });
  };
  const attach = () => {
    root = el.closest(".compresskit");
    if (root) root.addEventListener("keydown", press);
    else timer = setTimeout(attach, 50);
  };
  let timer = setTimeout(attach, 0);
  return () => {
    clearTimeout(timer);
    root?.removeEventListener("keydown", press);
  };
}
export default { render };
