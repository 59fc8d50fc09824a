/** The HTTP server of the status page, with its style sheet, script and icon. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { asError } from '../../base/errors.ts'
import { LOOPBACK, parseIpAddress } from '../../wire/ip-address.ts'

/**
 * The page's only script: it fetches the page again and exchanges what has changed. Without it the
 * page reloads itself.
 */
const SCRIPT = `'use strict'
const EVERY_MS = 5000
let busy = false
async function refresh() {
  if (busy || document.hidden) return
  busy = true
  try {
    const answer = await fetch('/', { cache: 'no-store', signal: AbortSignal.timeout(10000) })
    if (!answer.ok) throw new Error(answer.statusText)
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html')
    for (const part of document.querySelectorAll('[data-live]')) {
      const next = fresh.getElementById(part.id)
      if (next !== null && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes)
    }
    document.title = fresh.title
    document.body.classList.remove('stale')
  } catch {
    document.body.classList.add('stale')
  } finally {
    busy = false
  }
}
setInterval(refresh, EVERY_MS)
document.addEventListener('visibilitychange', refresh)
`

/** The page's style sheet. It uses the fonts of the reader's system, so that nothing is fetched. */
const STYLE = `:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --edge: #e2e5ea; --text: #1c2430; --soft: #5b6675; --faint: #eceff3;
  --accent: #0f7b6c; --accent-text: #0a5f53; --accent-soft: #d9f0ec; --bad: #b3261e; --bad-soft: #fbe4e2; --mail: #3659c9; --mail-soft: #e3e9fb;
  --warn: #8a5a00; --warn-soft: #fdf0d5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10141a; --card: #181e26; --edge: #2a323d; --text: #e6eaf0; --soft: #9aa6b5; --faint: #222a34;
    --accent: #3fc1ad; --accent-text: #5fd0be; --accent-soft: #12352f; --bad: #ff8a80; --bad-soft: #431c1a; --mail: #8fa8ff; --mail-soft: #1d2747;
    --warn: #f2bf5e; --warn-soft: #3b2c0b;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, Ubuntu, Cantarell, "Noto Sans", "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { display: flex; align-items: center; gap: 12px; padding-top: 22px; padding-bottom: 6px; }
header svg { width: 34px; height: 34px; flex: none; }
h1 { font-size: 19px; margin: 0; font-weight: 650; letter-spacing: -.01em; }
h1 small { display: block; font-size: 13px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.updated { margin-left: auto; text-align: right; color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
.mark-ring { fill: none; stroke: var(--accent); stroke-width: 3; }
.mark-gate { fill: none; stroke: var(--accent); stroke-width: 3; stroke-linecap: round; stroke-linejoin: round; }
h2 { font-size: 15px; font-weight: 650; margin: 0; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 12px; padding: 18px 20px; min-width: 0; }
.card > .head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; margin-bottom: 12px; }
.head .note { color: var(--soft); font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 14px; margin: 14px 0; }
.tile .label { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 34px; line-height: 1.15; font-weight: 650; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.tile .more { color: var(--soft); font-size: 13px; }
.tile.open .value { color: var(--accent); }
.tile.trouble .value { color: var(--bad); }
.alarm { border-radius: 12px; padding: 12px 18px; margin: 14px 0 0; background: var(--bad-soft); color: var(--bad); font-weight: 550; }
.alarm p { margin: 2px 0; }
.alarm .what { color: var(--text); font-weight: 400; overflow-wrap: anywhere; }
#stale { display: none; }
.stale #stale { display: block; }
.stale main > :not(#stale) { opacity: .55; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); font-size: 13px; margin: 0 0 0 auto; padding: 0; list-style: none; }
.legend li::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; background: currentColor; }
.legend .granted::before { background: var(--accent); } .legend .refused::before { background: var(--bad); } .legend .relayed::before { background: var(--mail); } .legend .closed::before { background: var(--soft); }
.chart { display: block; width: 100%; height: auto; font-size: 12px; font-variant-numeric: tabular-nums; }
.chart text { fill: var(--soft); }
.chart .grid line { stroke: var(--faint); } .chart .grid .base { stroke: var(--edge); } .chart .grid .tick { stroke: var(--faint); }
.chart rect.granted { fill: var(--accent); } .chart rect.refused { fill: var(--bad); } .chart rect.relayed { fill: var(--mail); } .chart rect.closed { fill: var(--soft); }
.chart .hover { fill: transparent; } .chart .step:hover .hover { fill: var(--faint); }
details { margin-top: 10px; font-size: 13px; color: var(--soft); }
summary { cursor: pointer; width: max-content; border-radius: 4px; }
summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.columns { display: grid; grid-template-columns: minmax(0, 7fr) minmax(0, 5fr); gap: 14px; margin: 14px 0; align-items: start; }
.states { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 14px; margin: 14px 0; }
.scroll { overflow: auto; max-height: 460px; margin: 0 -8px; padding: 0 8px; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th { text-align: left; font-size: 12px; font-weight: 550; color: var(--soft); padding: 0 12px 6px 0; border-bottom: 1px solid var(--edge); white-space: nowrap; position: sticky; top: 0; background: var(--card); }
td { padding: 8px 12px 8px 0; border-bottom: 1px solid var(--faint); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th:last-child, td:last-child { padding-right: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.address { font-family: ui-monospace, "Cascadia Mono", "SF Mono", Menlo, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
.login { overflow-wrap: anywhere; }
.soft { color: var(--soft); } td .soft { font-size: 13px; }
.badge { display: inline-block; border-radius: 999px; padding: 1px 9px; font-size: 12px; font-weight: 550; white-space: nowrap; background: var(--faint); color: var(--soft); }
.badge.good, .badge.granted { background: var(--accent-soft); color: var(--accent-text); } .badge.bad, .badge.refused { background: var(--bad-soft); color: var(--bad); }
.badge.warn { background: var(--warn-soft); color: var(--warn); } .badge.relayed { background: var(--mail-soft); color: var(--mail); }
.left { display: block; width: 88px; height: 5px; margin: 5px 0 0 auto; }
.left .all { fill: var(--faint); } .left .part { fill: var(--accent); }
.events { list-style: none; margin: 0; padding: 0; font-size: 14px; }
.events li { display: grid; grid-template-columns: 64px 92px minmax(0, 1fr); gap: 8px; padding: 7px 0; border-bottom: 1px solid var(--faint); align-items: baseline; }
.events li:last-child { border-bottom: 0; }
.events time { color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 6px 16px; margin: 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.empty { color: var(--soft); margin: 0; padding: 18px 0; text-align: center; }
footer { color: var(--soft); font-size: 13px; padding-top: 6px; padding-bottom: 32px; }
@media (max-width: 900px) { .columns, .states { grid-template-columns: minmax(0, 1fr); } .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } .legend { margin-left: 0; } }
@media (max-width: 520px) { header, main, footer { padding-left: 14px; padding-right: 14px; } .tile .value { font-size: 27px; } .card { padding: 14px; } .wide { display: none; } #chart { overflow-x: auto; } .chart { min-width: 620px; } }
@media (forced-colors: active) { .chart rect.granted, .chart rect.refused, .chart rect.relayed, .chart rect.closed, .left .part { fill: CanvasText; } .badge { border: 1px solid; } }
@media print { .scroll { max-height: none; } .card { break-inside: avoid; } }
`

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><g fill="none" stroke="#0f9d88" stroke-width="3.5" stroke-linecap="round" stroke-linejoin="round"><circle cx="20" cy="20" r="17"/><path d="M12 27V18a8 8 0 0 1 16 0v9M20 27v-7M9 27h22"/></g></svg>`

/** Files that do not change. */
const FILES: Readonly<Record<string, { readonly type: string; readonly body: string }>> = {
  '/style.css': { type: 'text/css; charset=utf-8', body: STYLE },
  '/refresh.js': { type: 'text/javascript; charset=utf-8', body: SCRIPT },
  '/icon.svg': { type: 'image/svg+xml', body: ICON },
}

/**
 * The browser runs only this script, connects only to this server, and does not allow another page
 * to embed or read this one.
 */
const HEADERS = {
  'content-security-policy':
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'cache-control': 'no-store',
} as const

export type StatusServerOptions = {
  /** Makes the page. */
  readonly page: () => Promise<string>
  /** False behind a Unix socket, which no page of another site can reach. */
  readonly checkHost: boolean
  /** Called with the fault if the page cannot be made. */
  readonly onFault: (error: Error) => void
}

/**
 * Serves the page, its style sheet, its script and its icon. The page changes nothing. A request
 * for another host's name is refused: otherwise a page of an attacker whose DNS name points to
 * 127.0.0.1 could read this page (DNS rebinding).
 */
export function createStatusServer(options: StatusServerOptions): Server {
  const limits = {
    ...{ requestTimeout: 10_000, headersTimeout: 5000, keepAliveTimeout: 15_000, maxHeaderSize: 8192 },
    // The server checks for silent connections each second, because a few of them would use up all
    // connections.
    connectionsCheckingInterval: 1000,
  }
  const server = createServer(limits, (request, response) => {
    answer(request, response, options).catch((error: unknown) => {
      options.onFault(asError(error))
      if (response.headersSent) response.destroy()
      else refuse(response, 500, 'The page could not be made: see the log.')
    })
  })
  server.maxConnections = 32
  return server
}

async function answer(request: IncomingMessage, response: ServerResponse, { page, checkHost }: StatusServerOptions) {
  if (checkHost && !isLoopbackHost(request.headers.host)) {
    return refuse(response, 421, 'This page is served to this host alone: ask for 127.0.0.1 or localhost.')
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD')
    return refuse(response, 405, 'This page can only be read.')
  }
  const file = FILES[request.url ?? '']
  if (file !== undefined) return send(response, file.type, file.body)
  if (request.url === '/') return send(response, 'text/html; charset=utf-8', await page())
  refuse(response, 404, 'There is only one page: /')
}

/**
 * `Host:` is localhost or a numeric loopback address, with any port. A port that is forwarded by
 * SSH differs.
 */
export function isLoopbackHost(host: string | undefined): boolean {
  const { name, v6 } =
    /^(?:(?<name>[A-Za-z0-9.-]+)|\[(?<v6>[0-9A-Fa-f:.]+)\])(?::\d{1,5})?$/.exec(host ?? '')?.groups ?? {}
  if (name?.toLowerCase() === 'localhost') return true
  const ip = parseIpAddress(v6 ?? name ?? '')
  return ip !== undefined && LOOPBACK.has(ip)
}

function send(response: ServerResponse, type: string, body: string): void {
  response.writeHead(200, { ...HEADERS, 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body)
}

function refuse(response: ServerResponse, status: number, text: string): void {
  // Further input of the client is not read.
  response
    .writeHead(status, { ...HEADERS, 'content-type': 'text/plain; charset=utf-8', connection: 'close' })
    .end(`${text}\n`)
}
