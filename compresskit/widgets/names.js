// Gives the controls of a panel the names, spoken values and hover texts that ipywidgets leaves out, and keeps their keys
// to them.

// JupyterLab takes plain keys for the notebook, whatever has the focus: an arrow in a list goes to the next cell, and an
// x on a slider deletes the panel's. What is pressed with Ctrl, Alt or Meta, and Shift+Enter, still reaches it.
function keep(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || (event.shiftKey && event.key === "Enter")) return;
  event.stopPropagation();
  if (event.target.matches(".noUi-handle") && SCROLL.includes(event.key)) event.preventDefault();
}

// A slider that stands still lets these keys go, and the page would be gone from under the hand: to its end, by End.
const SCROLL = [" ", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"];

// A click beside the controls, on a plot for one, gives the focus to the panel; else JupyterLab's cell has it, and the
// next key is the notebook's: Ctrl+Z would take back the writing of cells.
function hold(root) {
  root.tabIndex = -1;
  root.style.outline = "none";
}

function render({ model, el }) {
  el.style.display = "none";
  let root = null;
  const speak = (slider) => {
    const readout = slider.querySelector(".widget-readout");
    const handle = slider.querySelector(".noUi-handle");
    if (readout && handle && handle.getAttribute("aria-valuetext") !== readout.textContent)
      handle.setAttribute("aria-valuetext", readout.textContent);
  };
  const label = () => {
    root ??= el.closest(".compresskit");
    if (!root) return;
    for (const [selector, hint] of Object.entries(model.get("hints")))
      for (const field of root.querySelectorAll(selector)) if (field.title !== hint) field.title = hint;
    for (const label of root.querySelectorAll(".widget-label[title=null]")) label.removeAttribute("title");
    for (const [selector, name] of Object.entries(model.get("names"))) {
      const field = root.querySelector(selector);
      if (!field) continue;
      const buttons = field.querySelector(".widget-toggle-buttons, .jupyter-widget-toggle-buttons") ??
        (field.matches(".widget-toggle-buttons") ? field : null);
      const target = field.querySelector(".noUi-handle") ?? field.querySelector("select, input, textarea");
      if (target) {
        if (target.getAttribute("aria-label") !== name) target.setAttribute("aria-label", name);
      } else if (field.getAttribute("aria-label") !== name) {
        (buttons ?? field).setAttribute("role", "group");
        field.setAttribute("aria-label", name);
      }
      for (const button of field.querySelectorAll(".widget-toggle-button")) {
        const pressed = String(button.classList.contains("mod-active"));
        if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
      }
      speak(field);
    }
  };
  // The page builds the panel piece by piece; and each readout changes with its slider.
  const watcher = new MutationObserver(label);
  const attach = () => {
    label();
    if (root) {
      hold(root);
      watcher.observe(root, { subtree: true, childList: true, characterData: true, attributeFilter: ["class"] });
      root.addEventListener("keydown", keep);
    } else timer = setTimeout(attach, 50);
  };
  let timer = setTimeout(attach, 0);
  model.on("change:names", label);
  return () => {
    clearTimeout(timer);
    watcher.disconnect();
    root?.removeEventListener("keydown", keep);
    model.off("change:names", label);
  };
}
export default { render };
