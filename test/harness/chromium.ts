import { type Browser, type CDPSession, launch, type Page } from 'puppeteer-core'
import { command, pathOf } from './describe-with.ts'
import { temporaryDirectory } from './temporary-directory.ts'

/** The browser of the Debian package, without its own traffic to the world. */
export const CHROMIUM = command('chromium')

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** A headless Chromium with one page. */
export class Chromium {
  readonly page: Page
  /** Address of each request of the page since it was made, in order. */
  readonly requests: string[] = []
  /** Exceptions that no script caught, and complaints of the browser, such as its policy. */
  readonly faults: string[] = []
  readonly #browser: Browser
  readonly #removeProfile: () => void

  private constructor(browser: Browser, page: Page, devtools: CDPSession, removeProfile: () => void) {
    this.#browser = browser
    this.#removeProfile = removeProfile
    this.page = page
    page.on('request', request => this.requests.push(request.url()))
    page.on('pageerror', error => this.faults.push(String(error)))
    devtools.on('Log.entryAdded', ({ entry }) => this.faults.push(entry.text))
  }

  /** Starts the browser; its page is empty. */
  static async start(): Promise<Chromium> {
    const { path, remove } = temporaryDirectory()
    const browser = await launch({
      executablePath: pathOf('chromium') ?? 'chromium',
      args: FLAGS,
      userDataDir: path,
      env: { ...process.env, HOME: path },
    })
    const page = await browser.newPage()
    const devtools = await page.createCDPSession()
    const chromium = new Chromium(browser, page, devtools, remove)
    await devtools.send('Log.enable')
    return chromium
  }

  /** Goes to an address and waits until everything of it is loaded. */
  async open(url: string): Promise<void> {
    await this.page.goto(url, { waitUntil: 'load' })
  }

  /** Runs an expression in the page; its value, as JSON has it. */
  evaluate(expression: string): Promise<unknown> {
    return this.page.evaluate(expression)
  }

  /** The text that a reader sees in the first element that a selector finds. */
  async text(selector: string): Promise<string> {
    return String(await this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`))
  }

  async close(): Promise<void> {
    await this.#browser.close()
    this.#removeProfile()
  }
}
