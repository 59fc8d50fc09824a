import { request } from 'node:http'
import { createConnection } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { CHROMIUM, Chromium } from '../../harness/processes/chromium.ts'
import { Demo } from '../../harness/processes/demo.ts'
import { statusOf } from '../../harness/processes/process-status.ts'
import { run } from '../../harness/processes/program.ts'
import { describeWith } from '../../harness/runner/describe-with.ts'
import { commandOf, Stack } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
const directory = `${path}/var`
let demo: Demo

beforeAll(async () => {
  demo = new Demo(directory, { cluster: 'earlier' })
  await demo.ready()
})
afterAll(async () => {
  await demo.program.stop()
  remove()
})

const address = (): string => `http://127.0.0.1:${demo.port('status-page')}/`

/** Sends one request as text, so that its headers can have any value. */
function ask(options: { path?: string; method?: string; host?: string } = {}) {
  const { path: wanted = '/', method = 'GET', host = `127.0.0.1:${demo.port('status-page')}` } = options
  return new Promise<{ status: number | undefined; body: string; header: (name: string) => string }>(
    (resolve, reject) => {
      const sent = request({
        port: demo.port('status-page'),
        host: '127.0.0.1',
        path: wanted,
        method,
        headers: { host },
      })
      sent.on('response', answer => {
        let body = ''
        answer.setEncoding('utf8').on('data', (text: string) => {
          body += text
        })
        answer.on('end', () =>
          resolve({ status: answer.statusCode, body, header: name => String(answer.headers[name] ?? '') }),
        )
      })
      sent.on('error', reject)
      sent.end()
    },
  )
}

/** The login of a POP3 client; the name can be any text. */
async function logIn(user: string, password: string): Promise<void> {
  const socket = createConnection(demo.port('popup'), '127.0.0.1').setEncoding('utf8')
  let received = ''
  socket.on('data', (text: string) => {
    received += text
  })
  socket.write(`USER ${user}\r\nPASS ${password}\r\nQUIT\r\n`)
  await eventually('three replies', () => received.split('\r\n').length > 3)
  socket.destroy()
}

describe('the page over HTTP', () => {
  test('the screen of the demo shows its address', async () => {
    const line = await demo.program.waitForLine(/^ {2}page /)
    expect(line).toContain(address())
    expect(await ask()).toMatchObject({
      status: 200,
      body: expect.stringContaining('No address has a grant now.'),
    })
  })

  test('only its own script runs, and no other page may embed or read it', async () => {
    const { header } = await ask()
    expect(header('content-security-policy')).toBe(
      "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )
    expect(header('x-content-type-options')).toBe('nosniff')
    expect(header('cross-origin-resource-policy')).toBe('same-origin')
    expect(header('referrer-policy')).toBe('no-referrer')
    expect(header('cache-control')).toBe('no-store')
  })

  test.each(['attacker.example', 'localhost.attacker.example:80', '192.0.2.7', '[2001:db8::7]:80'])(
    'a request for the host %j is refused: DNS rebinding',
    async host => {
      expect(await ask({ host })).toMatchObject({ status: 421, body: expect.not.stringContaining('<') })
    },
  )

  test('HEAD has no body, other methods and other paths are refused', async () => {
    expect(await ask({ method: 'HEAD' })).toMatchObject({ status: 200, body: '' })
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const answer = await ask({ method })
      expect(answer.status).toBe(405)
      expect(answer.header('allow')).toBe('GET, HEAD')
    }
    for (const wanted of ['/../auth-relay.toml', '/.git', '//', '/?x=1'])
      expect((await ask({ path: wanted })).status).toBe(404)
  })

  test('the page is served by a separate process that is not root and has no secret', async () => {
    const words = demo.processes().find(text => text.includes(' status-page ')) ?? ''
    const pid = Number(words.split(' ')[0])
    const isRoot = process.geteuid?.() === 0
    expect(statusOf(pid)?.uids).toEqual(Array(4).fill(isRoot ? 61_194 : process.getuid?.()))
    expect((await ask()).body).not.toMatch(/password|dbpass|sslhack/i)
  })
})

test('an address that other hosts can reach is refused at once: 100', async () => {
  const stack = new Stack({ 'status-page': { listen: '192.0.2.1:8110' }, database: { dbhost: '127.0.0.1' } })
  const program = await stack.run('auth-relay', ['status-page', '--config', stack.config])
  expect(program.lines).toEqual([
    'status-page: status-page.listen: 192.0.2.1:8110 can be reached from elsewhere: use 127.0.0.1:PORT or [::1]:PORT',
  ])
  expect(program.ending?.code).toBe(100)
  await stack.stop()
})

describeWith([CHROMIUM], 'the page in a real browser', () => {
  let browser: Chromium

  beforeAll(async () => {
    browser = await Chromium.start()
    await browser.open(address())
  })
  afterAll(() => browser.close())

  /**
   * The text at a place of the page after a new fetch. A page that becomes visible fetches at once.
   */
  const shown = (place: string, text: string): Promise<unknown> =>
    eventually(
      `${place} shows ${text}`,
      async () => {
        await browser.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")
        const isShown = async (): Promise<boolean> => (await browser.text(place)).includes(text)
        return eventually(`${place} is fetched`, isShown, 1000).catch(() => false)
      },
      20_000,
    )

  test('the page shows that no address may relay, and after a login the address that may, without a reload', async () => {
    expect(await browser.text('#grants')).toContain('No address has a grant now.')
    await browser.evaluate('window.sameDocument = true')
    await logIn('demo', 'demo')
    await eventually('the grant is shown', async () => (await browser.text('#grants')).includes('127.0.0.1'), 20_000)
    expect(await browser.text('#grants')).toMatch(/127\.0\.0\.1\s+demo\s+popup no TLS\s+1 login/)
    expect(await browser.text('#tiles')).toMatch(/May relay now\s+1\s/)
    expect(await browser.text('#events')).toMatch(/granted\s+127\.0\.0\.1 demo\s+popup, pass/)
    expect(await browser.evaluate('document.title')).toMatch(/^1 address may relay/)
    expect(await browser.evaluate('window.sameDocument')).toBe(true)
  })

  test('the chart has a bar for the login, and a description in words', async () => {
    expect(await browser.evaluate("document.querySelectorAll('#chart rect.granted').length")).toBeGreaterThan(0)
    expect(await browser.evaluate("document.querySelector('#chart-text').textContent")).toMatch(
      /^In the last 12 hours 1 login was granted, 0 were refused/,
    )
    expect(
      await browser.evaluate(
        "[...document.querySelectorAll('#chart rect')].every(({ width }) => width.baseVal.value > 0)",
      ),
    ).toBe(true)
  })

  test('relayed mail appears with its service, other clients as a number; database and certificate are named', async () => {
    createConnection({ port: demo.port('wrap'), host: '127.0.0.1', localAddress: '127.0.0.2' })
      .end('QUIT\r\n')
      .resume()
    await run(['/bin/sh', '-c', `${demo.command('swaks')} --quit-after RCPT`])
    await shown('#events', 'service gate')
    expect(await browser.text('#gate')).toMatch(/service gate\s+1 connection let through/)
    await shown('#gate', '1 connection let through, 1 not')
    expect(await browser.evaluate("document.querySelectorAll('#chart rect.closed').length")).toBe(1)
    expect(await browser.text('#database')).toMatch(/state\s+up/)
    expect(await browser.text('#certificate')).toMatch(/valid self-signed/)
  })

  test('a login name with the text of a program is shown as text', async () => {
    const hostile = "<img/src=x/onerror=document.title=1>&'`"
    const imported = await run(
      commandOf('auth-relay', 'import', 'csv', '-', '--config', `${directory}/auth-relay.toml`),
      {
        input: `192.0.2.66,${Math.floor(Date.now() / 1000)},${hostile}\n`,
      },
    )
    expect(imported.lines.join(' ')).toContain('Granted: 1.')
    await shown('#grants', '<img/src=x')
    expect(await browser.text('#events')).toContain(hostile)
    expect(await browser.evaluate("document.querySelectorAll('main img, main script').length")).toBe(0)
  })

  test('the page fetches nothing from another host, and violates no rule of its policy', () => {
    expect(browser.requests.length).toBeGreaterThan(3)
    expect(browser.requests.filter(url => !url.startsWith(address()))).toEqual([])
    expect(browser.faults).toEqual([])
  })

  test.each(['light', 'dark'])('text has enough contrast in %s', async scheme => {
    await browser.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
    expect(await browser.evaluate(`matchMedia('(prefers-color-scheme: ${scheme})').matches`)).toBe(true)
    const ratios = await browser.evaluate(CONTRASTS)
    expect(Object.keys(Object(ratios)).length).toBeGreaterThan(8)
    // WCAG 2.2, 1.4.3: 4.5 to 1 for text of this size.
    for (const [name, ratio] of Object.entries(Object(ratios)))
      expect([name, Number(ratio) >= 4.5]).toEqual([name, true])
  })

  test('on a narrow screen no element is too wide', async () => {
    await browser.page.setViewport({ width: 380, height: 800, isMobile: true })
    expect(await browser.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(380)
    await browser.page.setViewport(null)
  })

  test('the page reports that the server has stopped answering', async () => {
    const served = await browser.text('#updated')
    await demo.program.stop()
    await eventually('the page is marked as stale', () => browser.evaluate("document.body.matches('.stale')"), 20_000)
    expect(await browser.text('#stale')).toContain('This page gets no answer')
    expect(await browser.text('#updated')).not.toBe('')
    expect(served).toContain('as of')
  })
})

/** The contrast between the text of each kind of element and its background (WCAG 2.2). */
const CONTRASTS = `(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number)
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    return 0.2126 * x + 0.7152 * y + 0.0722 * z
  }
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor
      if (color !== 'rgba(0, 0, 0, 0)' && color !== 'transparent') return numbers(color)
    }
    return [255, 255, 255]
  }
  const found = {}
  for (const element of document.querySelectorAll('h1, h1 small, h2, .note, .value, .label, .more, th, td, .soft, .badge, .address, dt, dd, time, footer')) {
    if (element.innerText?.trim() === '') continue
    const [a, b] = [luminance(numbers(getComputedStyle(element).color)), luminance(behind(element))].sort((x, y) => y - x)
    const name = element.tagName + '.' + element.className
    found[name] = Math.min(found[name] ?? 99, (a + 0.05) / (b + 0.05))
  }
  return found
})()`
