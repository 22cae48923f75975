/** Settings of a form under a name, in this browser. */

import { setText } from './i18n.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';

const MOST = 30;

function read(store) {
  try {
    const found = JSON.parse(localStorage.getItem(store) ?? '[]');
    return Array.isArray(found) ? found.filter((one) => typeof one?.name === 'string' && one.values) : [];
  } catch {
    return []; // No storage, or what is in it was not written here.
  }
}

function write(store, all) {
  try {
    localStorage.setItem(store, JSON.stringify(all.slice(0, MOST)));
    return true;
  } catch {
    return false;
  }
}

/** Fills `box` with a choice of presets for the fields of these ids, and with what saves and deletes them. */
export function presets(box, kind, ids) {
  const store = `studio.presets.${kind}`;
  const select = h('select', { id: `${kind}-preset` });
  const name = h('input', { id: `${kind}-preset-name`, maxlength: '60', autocomplete: 'off', 't-placeholder': 'preset.name', 't-aria-label': 'preset.name' });
  const fill = (chosen = '') => {
    ui.fillSelect(select, [['', 'preset.none'], ...read(store).map((one) => [one.name, 'plain', { text: one.name }])]);
    select.value = chosen;
    remove.disabled = !chosen;
  };
  const save = ui.button('save.go', {
    icon: 'save',
    onclick: () => {
      const wanted = name.value.trim() || select.value;
      if (!wanted) {
        name.focus();
        return;
      }
      const values = Object.fromEntries(ids.map((id) => [id, $(id).value]));
      const all = read(store).filter((one) => one.name !== wanted);
      if (!write(store, [{ name: wanted, values }, ...all])) return;
      name.value = '';
      fill(wanted);
      ui.toast('preset.saved', { name: wanted });
    },
  });
  const remove = ui.button('delete', {
    icon: 'trash', quiet: true,
    onclick: () => {
      write(store, read(store).filter((one) => one.name !== select.value));
      fill();
      select.focus();
    },
  });
  select.addEventListener('change', () => {
    const found = read(store).find((one) => one.name === select.value);
    remove.disabled = !found;
    if (found) ui.setFields(found.values);
  });
  const label = h('span');
  setText(label, 'preset.title');
  box.replaceChildren(h('label', { class: 'field grow', for: select.id }, label, select), name, h('div', { class: 'buttons' }, save, remove));
  fill();
}
