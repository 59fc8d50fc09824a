import * as v from 'valibot'
import { command } from './describe-with.ts'
import { eventually } from './eventually.ts'
import { Program } from './program.ts'
import { temporaryDirectory } from './temporary-directory.ts'

/** The browser of the Debian package, without its own traffic to the world. */
export const CHROMIUM = command('chromium')

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--remote-debugging-port=0',
]

const message = v.object({
  id: v.optional(v.number()),
  method: v.optional(v.string()),
  params: v.optional(v.record(v.string(), v.unknown())),
  result: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ message: v.string() })),
})
type Answer = Readonly<Record<string, unknown>>

/** What a page did: one event of the DevTools protocol. */
export type PageEvent = { readonly method: string; readonly params: Answer }

/** A headless Chromium with one page, driven through the DevTools protocol. */
export class Chromium {
  readonly #program: Program
  readonly #removeProfile: () => void
  readonly #waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>()
  #socket: WebSocket | undefined
  #session = ''
  #lastId = 0
  /** Everything that the page did since it was opened, in order. */
  readonly events: PageEvent[] = []

  private constructor() {
    const { path, remove } = temporaryDirectory()
    this.#removeProfile = remove
    this.#program = new Program('chromium', ['chromium', ...FLAGS, `--user-data-dir=${path}`, 'about:blank'], {
      env: { HOME: path },
    })
  }

  /** Starts the browser; its page is empty. */
  static async start(): Promise<Chromium> {
    const browser = new Chromium()
    try {
      await browser.#connect()
      return browser
    } catch (error) {
      await browser.close()
      throw error
    }
  }

  /** Goes to an address and waits until everything of it is loaded. */
  async open(url: string): Promise<void> {
    const before = this.events.length
    await this.#call('Page.navigate', { url })
    await eventually(`${url} is loaded`, () =>
      this.events.slice(before).some(({ method }) => method === 'Page.loadEventFired'),
    )
  }

  /** Runs an expression in the page; its value, as JSON has it. */
  async evaluate(expression: string): Promise<unknown> {
    const answer = await this.#call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
    if (answer['exceptionDetails'] !== undefined) throw new Error(JSON.stringify(answer['exceptionDetails']))
    return v.parse(v.object({ result: v.object({ value: v.optional(v.unknown()) }) }), answer).result.value
  }

  /** The text that a reader sees in the first element that a selector finds. */
  async text(selector: string): Promise<string> {
    return String(await this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`))
  }

  /** Calls a method of the protocol for this page. */
  devtools(method: string, params: Answer = {}): Promise<Answer> {
    return this.#call(method, params)
  }

  async close(): Promise<void> {
    this.#socket?.close()
    await this.#program.stop()
    this.#removeProfile()
  }

  async #connect(): Promise<void> {
    const line = await this.#program.waitForLine(/^DevTools listening on /, 30_000)
    const socket = new WebSocket(line.replace('DevTools listening on ', '').trim())
    this.#socket = socket
    socket.addEventListener('message', ({ data }) => this.#hear(String(data)))
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve)
      socket.addEventListener('error', () => reject(new Error(`no connection to ${line}`)))
    })
    const { targetId } = await this.#call('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.#call('Target.attachToTarget', { targetId, flatten: true })
    this.#session = String(sessionId)
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await this.#call(`${domain}.enable`)
  }

  #call(method: string, params: Answer = {}): Promise<Answer> {
    this.#lastId += 1
    const id = this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    this.#waiting.set(id, { resolve, reject })
    this.#socket?.send(
      JSON.stringify({ id, method, params, ...(this.#session === '' ? {} : { sessionId: this.#session }) }),
    )
    return promise
  }

  #hear(text: string): void {
    const { id, method, params, result, error } = v.parse(message, JSON.parse(text))
    if (method !== undefined) this.events.push({ method, params: params ?? {} })
    if (id === undefined) return
    const call = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) call?.resolve(result ?? {})
    else call?.reject(new Error(error.message))
  }
}
