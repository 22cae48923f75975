/** What something that was made is called: its title, which can be changed where it stands, and its downloads' names. */

import * as api from './api.js';
import { tell } from './elsewhere.js';
import { setText } from './i18n.js';
import * as ui from './ui.js';
import { h } from './ui.js';

const MAX_TITLE = 500;

/** A download's name: what no file system takes is left out. */
export function fileName(title, id, extension, suffix = '') {
  const plain = [...title.replace(/[\\/:*?"<>|\p{C}]/gu, (sign) => ('\u200c\u200d'.includes(sign) ? sign : '_'))].slice(0, 80).join('').replace(/^[. ]+|[. ]+$/g, '');
  return `${plain || id}${suffix}.${extension}`;
}

/**
 * The title of a job as a heading with a button that renames it. link: of the job; untitled: [key, values] where it has
 * none; onNamed(job): it has another one. Returns {element, show(job)}.
 */
export function titleOf(job, { untitled, onNamed = () => {} }) {
  const text = h('span', { dir: 'auto' });
  const heading = h('h2', { class: 'name' }, text);
  const notices = h('div', { class: 'notices' });
  const box = h('div', { class: 'naming' });
  const edit = ui.button('rename', { icon: 'pencil', quiet: true, onclick: () => open() });

  const show = (next) => {
    job = next;
    heading.title = job.title ?? ''; // A long one is cut off after two lines.
    if (job.title) setText(text, 'plain', { text: job.title });
    else setText(text, ...untitled);
  };
  const close = () => {
    notices.replaceChildren();
    box.replaceChildren(heading, edit);
    edit.focus();
  };
  function open() {
    const input = h('input', { maxlength: String(MAX_TITLE), dir: 'auto', 't-aria-label': 'rename.title', autocomplete: 'off' });
    input.value = job.title ?? '';
    const form = h('form', { class: 'naming', novalidate: true }, input, h('button', { type: 'submit', class: 'primary', t: 'save.go' }),
      ui.button('cancel', { onclick: close }), notices);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (!input.value.trim() || input.value.trim() === job.title) {
        close();
        return;
      }
      ui.busy(form.querySelector('.primary'), async () => {
        try {
          const named = await api.sendJson(job.links.self, { title: input.value.trim() }, 'PATCH');
          show(named);
          onNamed(named);
          tell('named', { id: named.job_id ?? named.synthesis_id, title: named.title });
          close();
        } catch (error) {
          notices.replaceChildren(ui.errorNotice(error));
        }
      });
    });
    form.addEventListener('keydown', (event) => event.key === 'Escape' && (event.stopPropagation(), close()));
    box.replaceChildren(form);
    input.select();
    input.focus();
  }
  box.append(heading, edit);
  show(job);
  return { element: box, show, title: () => job.title ?? '' };
}

/** How a job stands, as it is: [key of the words, class]. file: the link to what it has made. */
export function stateOf(job, file) {
  if (job.revoked_at) return ['status.revoked', 'failed'];
  if (job.status === 'succeeded' && !file) return ['status.expired', 'gone'];
  return [`status.${job.status}`, job.status];
}
