// Takes things out of a panel: the file as a download, the recipe by the clipboard.
function render({ model, el }) {
  el.classList.add("ck-toolbar");
  const make = (tag, className, text) => {
    const made = document.createElement(tag);
    made.className = className;
    if (text) made.textContent = text;
    return made;
  };
  const row = make("div", "ck-toolbar-row");
  const download = make("button", "ck-button ck-primary ck-download");
  const other = make("button", "ck-button ck-download-other");
  const copy = make("button", "ck-button ck-copy", "Copy the recipe as Python");
  const note = make("span", "ck-note ck-toolbar-note");
  note.setAttribute("role", "status");
  for (const button of [download, other, copy]) button.type = "button";
  row.append(download, other, copy, note);
  const code = make("textarea", "ck-code");
  code.readOnly = true;
  code.rows = 7;
  code.spellcheck = false;
  code.setAttribute("aria-label", "The recipe as Python");
  const details = make("details", "ck-details");
  const summary = make("summary", "", "Show the recipe");
  details.append(summary, code);
  el.append(row, details);

  const update = () => {
    download.textContent = model.get("download_label");
    download.disabled = !model.get("file_name");
    other.textContent = model.get("other_label");
    other.hidden = !model.get("other_label");
    other.disabled = !model.get("other_name");
    code.value = model.get("code");
    code.rows = Math.max(3, code.value.split("\n").length);
  };
  update();
  let timer = 0;
  const say = (text) => {
    note.textContent = text;
    clearTimeout(timer);
    timer = setTimeout(() => { note.textContent = ""; }, 6000);
  };

  // Packing a large file takes a while: a bar appears after half a second, until the file is here, or a sentence.
  const ask = (type) => {
    clearTimeout(timer);
    const bar = make("progress", "ck-late");
    bar.setAttribute("aria-label", "Making the file");
    note.replaceChildren(bar);
    model.send({ type });
  };
  download.addEventListener("click", () => ask("download"));
  other.addEventListener("click", () => ask("other"));
  const receive = (message, buffers) => {
    if (message.type === "say") say(message.text);
    if (message.type !== "file") return;
    const address = URL.createObjectURL(new Blob([buffers[0]], { type: "application/octet-stream" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = message.name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    say("Saved as " + message.name);
  };
  model.on("msg:custom", receive);

  const copied = () => model.send({ type: "copied" });
  details.addEventListener("toggle", () => { if (details.open) copied(); });
  copy.addEventListener("click", async () => {
    copied();
    try {
      await navigator.clipboard.writeText(code.value);
      say("Copied");
    } catch {
      // No clipboard (a page without HTTPS, a refusal): the text is shown and selected, to be copied by hand.
      details.open = true;
      code.focus();
      code.select();
      say("Press Ctrl+C (or Cmd+C) to copy the selected text");
    }
  });
  model.on("change", update);
  return () => {
    clearTimeout(timer);
    model.off("change", update);
    model.off("msg:custom", receive);
  };
}
export default { render };
