import { type Browser, type CDPSession, launch, type Page } from 'puppeteer-core'
import { command, pathOf } from '../runner/describe-with.ts'
import { temporaryDirectory } from '../temporary-directory.ts'

/** The browser of the Debian package. FLAGS stop its own requests to the Internet. */
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
  /** Addresses that the page has requested since it was opened, in order. */
  readonly requests: string[] = []
  /**
   * Exceptions that no script caught, and messages of the browser, such as violations of a content
   * security policy.
   */
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

  /** Starts the browser with an empty page. */
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

  /** Opens an address and waits until the page is loaded completely. */
  async open(url: string): Promise<void> {
    await this.page.goto(url, { waitUntil: 'load' })
  }

  /** Evaluates an expression in the page and returns its value by way of JSON. */
  evaluate(expression: string): Promise<unknown> {
    return this.page.evaluate(expression)
  }

  /** The visible text of the first element that a selector finds. */
  async text(selector: string): Promise<string> {
    return String(await this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`))
  }

  async close(): Promise<void> {
    await this.#browser.close()
    this.#removeProfile()
  }
}
