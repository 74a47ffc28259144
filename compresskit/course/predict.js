// A question to answer before seeing: native radio buttons or one field, so that keyboard and screen reader work.

const STYLE = `
.ck-predict fieldset { border: 1px solid var(--jp-border-color2, #bdbdbd); border-left: 4px solid #0072b2; border-radius: 4px;
  padding: .5em 1em .8em; margin: .3em 0; max-width: 46em; color: var(--jp-ui-font-color1, #1f1f1f);
  font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: 14px; line-height: 1.5; }
.ck-predict legend { font-weight: 600; padding: 0; float: left; width: 100%; margin: .2em 0 .3em; }
.ck-predict legend + * { clear: both; }
.ck-predict label { display: block; margin: .25em 0; cursor: pointer; }
.ck-predict label:has(input:checked:disabled) { font-weight: 600; }
.ck-predict input[type=radio] { margin: 0 .6em 0 0; accent-color: #0072b2; }
.ck-predict input[type=text] { width: 9em; font: inherit; text-align: right; padding: .2em .4em; margin-right: .5em;
  background: var(--jp-layout-color1, #fff); color: inherit; border: 1px solid var(--jp-border-color1, #757575); border-radius: 3px; }
.ck-predict button { font: inherit; padding: .25em 1em; margin: .5em 1em 0 0; cursor: pointer; border-radius: 3px;
  background: var(--jp-layout-color2, #eee); color: inherit; border: 1px solid var(--jp-border-color1, #757575); }
.ck-predict button:disabled { cursor: default; opacity: .6; }
.ck-predict :focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
`;

let questions = 0;

// "1,690.5" and "1 690.5" have thousands apart; a single comma elsewhere is a decimal comma.
function number(text) {
  const plain = text.trim().replace(/[\s_']/g, "");
  const joined = /^-?\d{1,3}(,\d{3})+(\.\d+)?$/.test(plain) ? plain.replace(/,/g, "") : plain.replace(",", ".");
  return joined === "" ? NaN : Number(joined);
}

function element(parent, kind, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(kind), properties));
}

function render({ model, el }) {
  el.classList.add("ck-predict");
  element(el, "style", { textContent: STYLE });
  const form = element(el, "form", { noValidate: true });
  const fields = element(form, "fieldset");
  element(fields, "legend", { textContent: model.get("question") });
  const group = `ck-predict-${++questions}`;
  const choices = model.get("choices");
  const inputs = choices.map((choice) => {
    const label = element(fields, "label");
    const input = element(label, "input", { type: "radio", name: group, value: choice });
    label.append(choice);
    return input;
  });
  let field = null;
  if (!choices.length) {
    const label = element(fields, "label");
    field = element(label, "input", { type: "text", inputMode: "decimal", autocomplete: "off" });
    field.setAttribute("aria-label", `${model.get("question")} (${model.get("unit") || "a number"})`);
    label.append(model.get("unit"));
    inputs.push(field);
  }
  const button = element(fields, "button", { type: "submit", textContent: "Commit" });
  // Else the arrow keys would leave the radio buttons and move through the cells. JupyterLab looks at what has the focus.
  [...inputs, button].forEach((control) => (control.dataset.lmSuppressShortcuts = "true"));
  const status = element(fields, "span");
  status.setAttribute("role", "status");

  form.addEventListener("keydown", (event) => {
    // Said here and not left to the browser: JupyterLab takes Enter in a text field for itself.
    if (event.key !== "Enter" || event.target === button) return;
    event.preventDefault();
    event.stopPropagation();
    commit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    commit();
  });

  function commit() {
    if (field) {
      const value = number(field.value);
      if (!Number.isFinite(value)) {
        status.textContent = "Please give a number.";
        return;
      }
      model.set("answer", String(value));
    } else {
      const chosen = inputs.find((input) => input.checked);
      if (!chosen) {
        status.textContent = "Please choose one first.";
        return;
      }
      model.set("answer", chosen.value);
    }
    model.save_changes();
  }

  function update() {
    const answer = model.get("answer");
    const done = answer !== "";
    inputs.forEach((input) => (input.disabled = done));
    button.disabled = done;
    if (!done) return;
    if (field) field.value = answer;
    else inputs.forEach((input) => (input.checked = input.value === answer));
    status.textContent = "Noted. Read on; the answer comes below.";
  }
  model.on("change:answer", update);
  update();
  return () => model.off("change:answer", update);
}

export default { render };
