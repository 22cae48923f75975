/** Links under which others may hear a result: made, copied, taken back. */

import * as api from './api.js';
import { dateTime } from './i18n.js';
import * as ui from './ui.js';
import { h } from './ui.js';

const DAYS = ['1', '7', '30'];
const offered = document.documentElement.dataset.sharing === 'true';

/** A button and the place that it opens, and whether it is offered: {press, place, offer(there)}. link(): of the job now; null where there is nothing to pass on. */
export function sharing(link) {
  const place = h('div');
  const press = ui.button('share', { icon: 'share', quiet: true, 'aria-expanded': 'false', onclick: () => toggle() });
  const offer = (there) => { press.hidden = !offered || !there; };
  offer(true);

  function toggle() {
    const open = press.getAttribute('aria-expanded') === 'true';
    press.setAttribute('aria-expanded', String(!open));
    if (open) place.replaceChildren();
    else ui.busy(press, show);
  }

  async function show() {
    const notices = h('div', { class: 'notices' });
    const attempt = (button, work) => ui.busy(button, async () => {
      notices.replaceChildren();
      try {
        await work();
      } catch (error) {
        notices.replaceChildren(ui.errorNotice(error));
      }
    });
    const list = h('div', { class: 'stack' });
    const days = h('select', { 't-aria-label': 'share.days' });
    ui.fillSelect(days, DAYS.map((count) => [count, `share.days_${count}`]));
    days.value = '7';
    const row = (share) => {
      const url = h('input', { readonly: true, 't-aria-label': 'share.link', dir: 'ltr' });
      url.value = share.url;
      url.addEventListener('focus', () => url.select());
      const copy = ui.button('share.copy', {
        onclick: async () => {
          url.select();
          try {
            await navigator.clipboard.writeText(share.url);
          } catch {
            document.execCommand('copy'); // Without HTTPS there is no clipboard for scripts; what is selected is copied.
          }
          ui.toast('share.copied');
        },
      });
      const revoke = ui.button('share.revoke', {
        onclick: (event) => attempt(event.currentTarget, async () => {
          await api.request(`${link()}/shares/${share.share_id}`, { method: 'DELETE' });
          element.remove();
          press.focus();
        }),
      });
      const element = h('div', { class: 'stack tight' }, h('div', { class: 'naming' }, url, copy, revoke),
        h('p', { class: 'small', t: ['share.until', { when: () => dateTime(share.expires_at) }] }));
      return element;
    };
    const make = ui.button('share.make', {
      kind: 'primary', icon: 'share',
      onclick: (event) => attempt(event.currentTarget, async () => {
        const share = await api.sendJson(`${link()}/shares`, { days: Number(days.value) });
        const element = row(share);
        list.prepend(element);
        element.querySelector('input').focus();
      }),
    });
    place.replaceChildren(h('div', { class: 'inset' }, h('p', { class: 'hint', t: 'share.hint' }),
      h('div', { class: 'naming' }, days, make), list, notices));
    try {
      list.append(...(await api.json(`${link()}/shares`)).shares.map(row));
    } catch (error) {
      notices.replaceChildren(ui.errorNotice(error));
    }
    make.focus();
  }
  return { press, place, offer };
}
