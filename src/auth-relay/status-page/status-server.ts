import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { asError } from '../../base/errors.ts'
import { LOOPBACK, parseIpAddress } from '../../wire/ip-address.ts'
import { SCRIPT } from './script.ts'
import { STYLE } from './style.ts'

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><g fill="none" stroke="#0f9d88" stroke-width="3.5" stroke-linecap="round" stroke-linejoin="round"><circle cx="20" cy="20" r="17"/><path d="M12 27V18a8 8 0 0 1 16 0v9M20 27v-7M9 27h22"/></g></svg>`

/** What never changes while we run. */
const FILES: Readonly<Record<string, { readonly type: string; readonly body: string }>> = {
  '/style.css': { type: 'text/css; charset=utf-8', body: STYLE },
  '/refresh.js': { type: 'text/javascript; charset=utf-8', body: SCRIPT },
  '/icon.svg': { type: 'image/svg+xml', body: ICON },
}

/** The browser runs our script alone, talks to us alone, and lets no other page embed or read this one. */
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
  /** Hears of a page that could not be made. */
  readonly onFault: (error: Error) => void
}

/**
 * Serves the page, its style sheet, its script and its icon; nothing can be changed through it. A
 * request for another host's name is refused:
 * a name that a stranger's DNS suddenly leads to 127.0.0.1 would let his page read ours (DNS rebinding).
 */
export function createStatusServer(options: StatusServerOptions): Server {
  const limits = {
    ...{ requestTimeout: 10_000, headersTimeout: 5000, keepAliveTimeout: 15_000, maxHeaderSize: 8192 },
    // Silent connections are looked for each second: a few of them would shut everybody out.
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

/** `Host:` is localhost or a loopback address in numbers, with any port: whoever forwards one by SSH has another. */
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
  // What the client still sends is not read.
  response
    .writeHead(status, { ...HEADERS, 'content-type': 'text/plain; charset=utf-8', connection: 'close' })
    .end(`${text}\n`)
}
