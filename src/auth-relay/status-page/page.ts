/** The status page as HTML: its parts, its chart, and the template that escapes every text. */

import type { EventCounts, LiveGrant, StatusEvent } from '../../grants/status-feed.ts'
import { formatDuration } from '../../settings/duration.ts'
import type { ShownCertificate } from '../certificates.ts'
import { formatTarget } from '../grant-target.ts'
import { clockTime, formatMoment, shortMoment } from '../text/moment.ts'
import { count, printable } from '../text/terminal.ts'
import { type Facts, MAX_EVENTS, MAX_GRANTS, type Snapshot, STEP_S, STEPS } from './status-source.ts'

/** HTML that is safe to send, because `html` made it. */
class Markup {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/**
 * Values of a template. Texts and numbers are escaped, and markup is not. The items of a list
 * follow each other. Undefined and false give no text.
 */
export type HtmlPart = string | number | Markup | undefined | false | readonly HtmlPart[]

/**
 * A template of HTML. No text that is put in, a login name from outside among them, can become an
 * element or an attribute.
 */
export const html = (strings: TemplateStringsArray, ...parts: readonly HtmlPart[]): Markup =>
  new Markup(strings.map((string, index) => string + (index < parts.length ? render(parts[index]) : '')).join(''))

function render(part: HtmlPart): string {
  if (part === undefined || part === false) return ''
  if (part instanceof Markup) return part.text
  if (typeof part === 'object') return part.map(render).join('')
  return String(part).replaceAll(/[&<>"'`]/g, character => `&#${character.charCodeAt(0)};`)
}

/** Facts for the page besides the snapshot. */
export type PageContext = { readonly host: string; readonly version: string; readonly expTime: number }

const MARK = html`<svg viewBox="0 0 40 40" aria-hidden="true"><circle class="mark-ring" cx="20" cy="20" r="17"/><path class="mark-gate" d="M12 27V18a8 8 0 0 1 16 0v9M20 27v-7M9 27h22"/></svg>`

/**
 * The whole page. The script replaces the content of each part that is marked data-live, by its id.
 */
export function page(snapshot: Snapshot, { host, version, expTime }: PageContext): string {
  const { taken, facts } = snapshot
  const open = facts === undefined ? 'no data' : `${count(facts.totals.grants, 'address', 'addresses')} may relay`
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>${open} &ndash; auth-relay on ${host}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/style.css">
<script src="/refresh.js" defer></script>
<noscript><meta http-equiv="refresh" content="30"></noscript>
</head>
<body>
<header>${MARK}<h1>auth-relay<small>${host}</small></h1><p class="updated" id="updated" data-live>as of <time datetime="${taken.toISOString()}">${formatMoment(taken)}</time></p></header>
<main>
<div class="alarm" id="stale" role="alert"><p>This page gets no answer, so its data is old.</p><p class="what">Check that auth-relay status-page runs. The page tries again every 5 seconds.</p></div>
<div id="alarms" data-live role="status">${alarms(snapshot)}</div>
<div class="tiles" id="tiles" data-live>${tiles(facts)}</div>
<section class="card" aria-labelledby="chart-head">
<div class="head"><h2 id="chart-head">Logins and gate decisions</h2><span class="note">the last ${(STEP_S * STEPS) / 3600} hours, ${STEP_S / 60} minutes a bar</span>
<ul class="legend"><li class="granted">login granted</li><li class="refused">login refused</li><li class="relayed">let through by the gate</li><li class="closed">not let through</li></ul></div>
<div id="chart" data-live>${facts === undefined ? NOTHING : chart(facts.steps)}</div>
<details><summary>The same in figures</summary><div id="figures" data-live>${facts === undefined ? NOTHING : figures(facts)}</div></details>
</section>
<div class="columns">
<section class="card" aria-labelledby="grants-head"><div class="head"><h2 id="grants-head">May relay now</h2><span class="note">a login renews it</span></div>
<div class="scroll" tabindex="0" role="region" aria-labelledby="grants-head" id="grants" data-live>${facts === undefined ? NOTHING : grants(facts, expTime)}</div></section>
<section class="card" aria-labelledby="events-head"><div class="head"><h2 id="events-head">What happened</h2><span class="note">the last hour</span></div>
<div class="scroll" tabindex="0" role="region" aria-labelledby="events-head" id="events" data-live>${facts === undefined ? NOTHING : events(facts)}</div></section>
</div>
<div class="states">
<section class="card" aria-labelledby="gate-head"><div class="head"><h2 id="gate-head">Gate</h2><span class="note">the last hour</span></div><div id="gate" data-live>${facts === undefined ? NOTHING : gate(facts)}</div></section>
<section class="card" aria-labelledby="devices-head"><div class="head"><h2 id="devices-head">Devices</h2></div><div id="devices" data-live>${facts === undefined ? NOTHING : devices(facts)}</div></section>
<section class="card" aria-labelledby="database-head"><div class="head"><h2 id="database-head">Database</h2></div><div id="database" data-live>${database(snapshot)}</div></section>
<section class="card" aria-labelledby="certificate-head"><div class="head"><h2 id="certificate-head">Certificate</h2><span class="note">as clients see it</span></div><div id="certificate" data-live>${certificates(snapshot)}</div></section>
</div>
</main>
<footer>This page changes nothing. Use auth-relay show, explain, allow and block. auth-relay ${version}</footer>
</body>
</html>
`.text
}

const NOTHING = html`<p class="empty">The database has not answered yet.</p>`

function alarms({ database: state, facts, certificates: shown, taken }: Snapshot): Markup | undefined {
  const found: Markup[] = []
  if (state.state === 'down') {
    found.push(
      html`<p>The database does not answer: the relay stays closed, POP3 works.</p><p class="what">${printable(state.reason)}${facts !== undefined && `. The figures are those of ${formatMoment(facts.totals.now)}.`}</p>`,
    )
  } else if (Math.abs(state.driftSeconds) > 5) {
    found.push(
      html`<p>The clocks of this host and of the database are ${formatDuration(Math.abs(state.driftSeconds))} apart.</p>`,
    )
  }
  for (const { address, found: certificate } of shown) {
    if ('fault' in certificate) found.push(html`<p>${address} does not speak TLS: ${printable(certificate.fault)}</p>`)
    else if (certificate.until <= taken) found.push(html`<p>The certificate of ${address} has ended.</p>`)
  }
  for (const { rule, subject, detail, since } of facts?.alarms ?? [])
    found.push(
      html`<p>${printable(rule)}: ${printable(subject)}</p><p class="what">${printable(detail)}, since ${formatMoment(since)}. auth-relay alerts prints the remedy.</p>`,
    )
  return found.length === 0 ? undefined : html`<div class="alarm">${found}</div>`
}

function tiles(facts: Facts | undefined): Markup {
  const tile = (kind: string, label: string, value: number | undefined, more: string) =>
    html`<div class="card tile ${kind}"><div class="label">${label}</div><div class="value">${value === undefined ? '–' : value.toLocaleString('en')}</div><div class="more">${more}</div></div>`
  const totals = facts?.totals
  const hour = facts?.lastHour
  const manual = totals === undefined ? '' : `${totals.allowances} allowed by hand, ${totals.blocks} blocked`
  return html`${tile((totals?.grants ?? 0) > 0 ? 'open' : '', 'May relay now', totals?.grants, manual)}${tile('', 'Logins granted', hour?.granted, 'in the last hour')}${tile((hour?.refused ?? 0) > 0 ? 'trouble' : '', 'Logins refused', hour?.refused, 'in the last hour')}${tile('', 'Let through by the gate', hour?.relayed, hour === undefined ? '' : `in the last hour, ${hour.closed.toLocaleString('en')} not`)}`
}

/** The chart's figures by the hour, the latest first. */
function figures({ steps }: Facts): Markup {
  const hours = Map.groupBy(steps, ({ start }) => formatMoment(start).slice(0, 13))
  const rows = [...hours].map(([hour, part]) => {
    const sum = (name: 'granted' | 'refused' | 'relayed' | 'closed') =>
      part.reduce((total, each) => total + each[name], 0)
    return html`<tr><th scope="row">${hour}:00</th><td class="number">${sum('granted')}</td><td class="number">${sum('refused')}</td><td class="number">${sum('relayed')}</td><td class="number">${sum('closed')}</td></tr>`
  })
  return html`<table><caption>${inWords(steps)}</caption><thead><tr><th scope="col">Hour from</th><th scope="col" class="number">Granted</th><th scope="col" class="number">Refused</th><th scope="col" class="number">Let through</th><th scope="col" class="number">Not</th></tr></thead><tbody>${rows.reverse()}</tbody></table>`
}

function grants({ grants: rows, totals }: Facts, expTime: number): Markup {
  if (rows.length === 0)
    return html`<p class="empty">No address has a grant now. The next POP3 login opens the relay for its address.</p>`
  const more =
    totals.grants > MAX_GRANTS &&
    html`<p class="empty">and ${totals.grants - MAX_GRANTS} more: auth-relay show lists them all</p>`
  return html`<table><thead><tr><th scope="col">Address</th><th scope="col">Login</th><th scope="col" class="wide">By</th><th scope="col" class="number">Until</th></tr></thead><tbody>${rows.map(row => grantRow(row, totals.now, expTime))}</tbody></table>${more}`
}

function grantRow({ network, login, daemon, tls, until, logins }: LiveGrant, now: Date, expTime: number): Markup {
  const left = (until.getTime() - now.getTime()) / 1000
  const part = Math.max(0, Math.min(1, left / expTime)) * 88
  return html`<tr><td class="address">${formatTarget(network)}</td><td class="login">${login === null ? html`<span class="soft">not kept</span>` : printable(login)}</td><td class="wide">${printable(daemon)} ${tls === true && html`<span class="badge good">TLS</span>`}${tls === false && html`<span class="badge warn">no TLS</span>`}<br><span class="soft">${count(logins, 'login')}</span></td><td class="number">${shortMoment(until, now)}<br><span class="soft">${formatDuration(left)} left</span><svg class="left" viewBox="0 0 88 5" aria-hidden="true"><rect class="all" width="88" height="5" rx="2.5"/><rect class="part" width="${part.toFixed(1)}" height="5" rx="2.5"/></svg></td></tr>`
}

const WORDS = {
  grant: ['granted', 'granted'],
  refused: ['refused', 'refused'],
  relay: ['relayed', 'let through'],
} as const

function events({ events: rows, totals }: Facts): Markup {
  if (rows.length === 0) return html`<p class="empty">Nothing in the last hour.</p>`
  return html`<ol class="events">${rows.map(row => eventRow(row, totals.now))}</ol>${rows.length === MAX_EVENTS && html`<p class="empty">the last ${MAX_EVENTS}; auth-relay watch shows all</p>`}`
}

function eventRow({ at, kind, ip, daemon, login, method, tls, reason }: StatusEvent, now: Date): Markup {
  const [style, word] = WORDS[kind]
  const how =
    kind === 'relay'
      ? `service ${daemon}`
      : [daemon, method, tls === true ? 'TLS' : ''].filter(text => text !== '' && text !== null).join(', ')
  return html`<li><time datetime="${at.toISOString()}">${shortMoment(at, now)}</time><span><span class="badge ${style}">${word}</span></span><span><span class="address">${ip}</span>${login !== null && html` <span class="login">${printable(login)}</span>`}<br><span class="soft">${printable(how)}${reason !== null && `: ${printable(reason)}`}</span></span></li>`
}

function gate({ services, totals }: Facts): Markup {
  const rows = services.map(
    ({ service, relayed, closed, undecided }) =>
      html`<dt>service ${printable(service)}</dt><dd>${count(relayed, 'connection')} let through, ${closed} not${undecided > 0 && html` <span class="badge bad">${undecided} without an answer of the database</span>`}</dd>`,
  )
  const none = services.length === 0 && html`<dt>services</dt><dd>no queries</dd>`
  return html`<dl>${rows}${none}<dt>allowed by hand</dt><dd>${count(totals.allowances, 'network')}</dd><dt>blocked</dt><dd>${count(totals.blocks, 'address, network or login', 'addresses, networks and logins')}</dd></dl>`
}

function devices({ devices: shown }: Facts): Markup {
  if (shown.length === 0) return html`<p class="empty">There is no device.</p>`
  const rows = shown.map(({ name, logins, lastLogin, until }) => {
    const seen = lastLogin === null ? 'not seen yet' : `last login ${formatMoment(lastLogin)}`
    return html`<dt>${printable(name)}</dt><dd>${printable(logins.join(', '))}: ${seen}${until !== null && html`, ends ${formatMoment(until)}`}</dd>`
  })
  return html`<dl>${rows}</dl>`
}

function database({ database: state, facts }: Snapshot): Markup {
  if (state.state === 'down') {
    return html`<dl><dt>state</dt><dd><span class="badge bad">unavailable</span></dd><dt>reason</dt><dd>${printable(state.reason)}</dd></dl>`
  }
  const drift = Math.abs(state.driftSeconds)
  return html`<dl><dt>state</dt><dd><span class="badge good">up</span></dd><dt>server</dt><dd>${printable(state.host)}</dd><dt>answers in</dt><dd>${state.milliseconds} ms</dd><dt>schema</dt><dd>${facts?.totals.schema ?? '–'}</dd><dt>clock</dt><dd>${drift < 1 ? 'the same as here' : `${formatDuration(drift)} apart`}</dd></dl>`
}

function certificates({ certificates: shown, taken }: Snapshot): Markup {
  if (shown.length === 0) return html`<p class="empty">No TLS address.</p>`
  return html`<dl>${shown.map(certificate => certificateRows(certificate, taken))}</dl>`
}

/** Time before its end at which a certificate is worth a warning: 14 days. */
const SOON_S = 14 * 86_400

function certificateRows({ address, found }: ShownCertificate, now: Date): Markup {
  const where = html`<dt>address</dt><dd class="address">${address}</dd>`
  if ('fault' in found)
    return html`${where}<dt>state</dt><dd><span class="badge bad">no TLS</span> ${printable(found.fault)}</dd>`
  const left = (found.until.getTime() - now.getTime()) / 1000
  const state =
    left <= 0
      ? html`<span class="badge bad">ended</span>`
      : left < SOON_S
        ? html`<span class="badge warn">ends soon</span>`
        : html`<span class="badge good">valid</span>`
  return html`${where}<dt>state</dt><dd>${state} ${found.isSelfSigned && html`<span class="badge warn">self-signed</span>`}</dd><dt>names</dt><dd>${printable(found.names)}</dd><dt>until</dt><dd>${formatMoment(found.until)}${left > 0 && html` <span class="soft">(${formatDuration(left)})</span>`}</dd>`
}

const WIDTH = 960
const LEFT = 44
const RIGHT = 8
/**
 * Heights of the parts, from above. Granted logins grow upward, refused ones downward. The gate's
 * clients have a separate strip below.
 */
const TOP = 12
const UP = 110
const DOWN = 40
const GAP = 30
const MAILS = 54
const CLOSED = 36
const AXIS = 22
const HEIGHT = TOP + UP + DOWN + GAP + MAILS + CLOSED + AXIS

const BASE = TOP + UP
const MAIL_BASE = BASE + DOWN + GAP + MAILS
const END = MAIL_BASE + CLOSED

/**
 * The logins, refusals and gate decisions of the last hours as one picture. Direction and place
 * repeat the meaning of each colour.
 */
export function chart(steps: readonly EventCounts[]): Markup {
  const width = (WIDTH - LEFT - RIGHT) / steps.length
  const logins = niceMaximum(Math.max(...steps.map(({ granted, refused }) => Math.max(granted, refused))))
  const mails = niceMaximum(Math.max(...steps.map(({ relayed }) => relayed)))
  // A separate scale, because most clients of a domain's mail server have no grant.
  const closedMaximum = niceMaximum(Math.max(...steps.map(({ closed }) => closed)))
  const x = (index: number): number => round(LEFT + index * width)
  const bar = (kind: string, index: number, y: number, height: number) =>
    height > 0 &&
    html`<rect class="${kind}" x="${round(x(index) + width * 0.12)}" y="${round(y)}" width="${round(width * 0.76)}" height="${round(height)}" rx="1.5"/>`
  const columns = steps.map(({ start, granted, refused, relayed, closed }, index) => {
    const [up, down] = [heightOf(granted, logins, UP), heightOf(refused, logins, DOWN)]
    const [mail, shut] = [heightOf(relayed, mails, MAILS), heightOf(closed, closedMaximum, CLOSED)]
    return html`<g class="step"><title>${clockTime(start)}&ndash;${clockTime(new Date(start.getTime() + STEP_S * 1000))}: ${granted} granted, ${refused} refused, ${relayed} let through, ${closed} not</title><rect class="hover" x="${x(index)}" y="${TOP}" width="${round(width)}" height="${END - TOP}"/>${bar('granted', index, BASE - up, up)}${bar('refused', index, BASE + 1, down)}${bar('relayed', index, MAIL_BASE - mail, mail)}${bar('closed', index, MAIL_BASE + 1, shut)}</g>`
  })
  const hours = steps.flatMap(({ start }, index) =>
    start.getMinutes() === 0 && start.getHours() % 2 === 0
      ? [
          html`<line class="tick" x1="${x(index)}" y1="${TOP}" x2="${x(index)}" y2="${END + 4}"/><text class="hour" x="${x(index)}" y="${HEIGHT - 4}" text-anchor="middle">${clockTime(start)}</text>`,
        ]
      : [],
  )
  const label = (value: number, y: number) => html`<text x="${LEFT - 8}" y="${y + 4}" text-anchor="end">${value}</text>`
  return html`<svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="chart-title chart-text"><title id="chart-title">Logins and gate decisions</title><desc id="chart-text">${inWords(steps)}</desc><g class="grid">${hours}<line x1="${LEFT}" y1="${TOP}" x2="${WIDTH - RIGHT}" y2="${TOP}"/><line x1="${LEFT}" y1="${TOP + UP / 2}" x2="${WIDTH - RIGHT}" y2="${TOP + UP / 2}"/><line class="base" x1="${LEFT}" y1="${BASE}" x2="${WIDTH - RIGHT}" y2="${BASE}"/><line class="base" x1="${LEFT}" y1="${MAIL_BASE}" x2="${WIDTH - RIGHT}" y2="${MAIL_BASE}"/><line x1="${LEFT}" y1="${MAIL_BASE - MAILS}" x2="${WIDTH - RIGHT}" y2="${MAIL_BASE - MAILS}"/><line x1="${LEFT}" y1="${END}" x2="${WIDTH - RIGHT}" y2="${END}"/>${label(logins, TOP)}${label(logins / 2, TOP + UP / 2)}${label(0, BASE)}${label(mails, MAIL_BASE - MAILS)}${label(0, MAIL_BASE)}${label(closedMaximum, END)}</g>${columns}</svg>`
}

/** The chart in words, for screen readers. */
function inWords(steps: readonly EventCounts[]): string {
  const sum = (read: (counts: EventCounts) => number): number => steps.reduce((total, each) => total + read(each), 0)
  const hours = (steps.length * STEP_S) / 3600
  return `In the last ${hours} hours ${were(
    sum(({ granted }) => granted),
    'login',
  )} granted, ${were(sum(({ refused }) => refused))} refused, and ${were(
    sum(({ relayed }) => relayed),
    'connection',
  )} let through by the gate, ${sum(({ closed }) => closed)} not.`
}

const were = (number: number, noun?: string): string =>
  `${noun === undefined ? number : count(number, noun)} ${number === 1 ? 'was' : 'were'}`

/** A round number not below the greatest value, and even, so that its half is whole. */
export function niceMaximum(greatest: number): number {
  if (greatest <= 4) return 4
  const power = 10 ** Math.floor(Math.log10(greatest))
  return (
    [1, 2, 4, 6, 8, 10].map(factor => factor * power).find(value => value >= greatest && value % 2 === 0) ?? 10 * power
  )
}

/** A value above zero has a visible height. */
const heightOf = (value: number, maximum: number, height: number): number =>
  value === 0 ? 0 : Math.min(height, Math.max(2, (value / maximum) * height))

const round = (number: number): number => Math.round(number * 10) / 10
