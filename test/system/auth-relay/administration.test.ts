import { writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { Demo } from '../../harness/processes/demo.ts'
import { Program as Process, type Program, run } from '../../harness/processes/program.ts'
import { commandOf } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
const directory = `${path}/var`
const config = `${directory}/auth-relay.toml`
let demo: Demo

beforeAll(async () => {
  demo = new Demo(directory, { cluster: 'earlier' })
  await demo.ready()
})
afterAll(async () => {
  await demo.program.stop()
  remove()
})

/** Runs a verb with the demo's settings; returns its exit status and its output. */
async function say(...words: readonly string[]): Promise<{ status: number | null; text: string }> {
  return result(await run(commandOf('auth-relay', ...words, '--config', config)))
}
const result = (program: Program) => ({ status: program.ending?.code ?? null, text: program.lines.join('\n') })
const json = async (...words: readonly string[]): Promise<unknown> => JSON.parse((await say(...words, '--json')).text)

/** Sends USER and PASS in clear text to the POP3 port. */
async function logIn(user = 'demo', password = 'demo'): Promise<string> {
  const socket = createConnection(demo.port('popup'), '127.0.0.1').setEncoding('utf8')
  let received = ''
  const reply = async (count: number): Promise<void> => {
    await eventually(`${count} replies`, () => received.split('\r\n').length > count)
  }
  socket.on('data', (text: string) => {
    received += text
  })
  await reply(1)
  socket.write(`USER ${user}\r\n`)
  await reply(2)
  socket.write(`PASS ${password}\r\n`)
  await reply(3)
  socket.end('QUIT\r\n')
  return received.split('\r\n')[2] ?? ''
}

const mayRelay = async (): Promise<boolean> =>
  !(await run(['/bin/sh', '-c', `${demo.command('swaks')} --quit-after RCPT`])).lines.some(line => line.includes('553'))

test('before any login no address may relay, and explain names the remedy', async () => {
  expect(await say('show')).toEqual({ status: 0, text: 'No address has a grant now.' })
  expect(await json('show')).toEqual([])
  const { status, text } = await say('explain', '127.0.0.1')
  expect(status).toBe(1)
  expect(text).toMatch(/^Mail from 127\.0\.0\.1 is not relayed\.\n {2}Never seen: .*\n {2}What to do: open the mailbox/)
})

describe('after a login', () => {
  beforeAll(async () => {
    expect(await logIn()).toMatch(/^\+OK/)
  })

  test('show has the grant, for people and for scripts', async () => {
    expect((await say('show')).text).toMatch(
      /^ADDRESS .*\n127\.0\.0\.1 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(.*\) +demo +popup +\S+ +no /,
    )
    expect(await json('show')).toEqual([
      expect.objectContaining({ address: '127.0.0.1', login: 'demo', daemon: 'popup', tls: false, logins: 1 }),
    ])
  })

  test('explain names the login for the current time, and not for a time before the login', async () => {
    const now = await say('explain', '127.0.0.1')
    expect(now.status).toBe(0)
    expect(now.text).toContain('Opened by: popup login demo')
    expect((await say('explain', '127.0.0.1', '--at', '1h')).status).toBe(1)
    expect(await json('explain', '127.0.0.1')).toMatchObject({ ip: '127.0.0.1', relay: true, rule: 'grant' })
  })

  test('block closes the relay at once, and new logins do not open it until unblock', async () => {
    expect(await mayRelay()).toBe(true)
    expect(await say('block', 'demo', '--for', '1h', '--reason', 'a test')).toMatchObject({
      status: 0,
      text: expect.stringMatching(/^demo is blocked until .*\. 1 grant deleted\.$/),
    })
    expect(await mayRelay()).toBe(false)
    expect(await logIn()).toMatch(/^\+OK/)
    expect(await mayRelay()).toBe(false)
    expect((await say('show')).text).toMatch(/\nBLOCKED .*\ndemo .* a test/)
    expect(await say('unblock', 'demo')).toMatchObject({ status: 0, text: 'demo can be granted at the next login.' })
    expect(await say('unblock', 'demo')).toMatchObject({ status: 1, text: 'demo was not blocked.' })
    expect(await logIn()).toMatch(/^\+OK/)
    expect(await mayRelay()).toBe(true)
  })

  test('block reports that a login was never seen, and blocks it nevertheless', async () => {
    expect(await say('block', 'dmeo', '--for', '1h')).toMatchObject({
      status: 0,
      text: expect.stringMatching(
        /^dmeo is blocked until .*\. 0 grants deleted\.\ndmeo was never seen: .*auth-relay report\nTo end the block: auth-relay unblock dmeo$/,
      ),
    })
    expect((await say('show')).text).toMatch(/\nBLOCKED .*\ndmeo /)
    expect((await say('unblock', 'dmeo')).status).toBe(0)
    expect(await json('block', 'dmeo', '--for', '1h')).toMatchObject({ known: false, removed: 0 })
    expect(await json('block', 'DEMO', '--for', '1h')).toMatchObject({ known: true })
    expect(await json('block', 'demo', '--for', '1h')).toMatchObject({ known: true, removed: 0 })
    for (const login of ['dmeo', 'demo']) expect((await say('unblock', login)).status).toBe(0)
    expect((await say('block', '192.0.2.7', '--login', '--for', '1h')).text).toMatch(
      /\nTo end the block: auth-relay unblock --login 192\.0\.2\.7$/,
    )
    expect((await say('unblock', '192.0.2.7')).status).toBe(1)
    expect((await say('unblock', '192.0.2.7', '--login')).status).toBe(0)
    expect(await logIn()).toMatch(/^\+OK/)
  })

  test('revoke and revoke --end still do what block and unblock do', async () => {
    expect((await say('revoke', 'demo', '--for', '1h')).status).toBe(0)
    expect(await mayRelay()).toBe(false)
    expect((await say('revoke', 'demo', '--end')).status).toBe(0)
    expect(await logIn()).toMatch(/^\+OK/)
    expect(await mayRelay()).toBe(true)
  })

  test('allow opens the relay without a login, but never for an ungrantable address', async () => {
    expect((await say('allow', '198.51.100.0/24', '--for', '8h', '--reason', 'a scanner')).status).toBe(0)
    expect((await say('explain', '198.51.100.7')).text).toMatch(
      /Allowed without a login: 198\.51\.100\.0\/24 allowed by \S+: a scanner/,
    )
    expect((await say('disallow', '198.51.100.0/24')).status).toBe(0)
    expect((await say('allow', '198.51.100.0/24', '--end')).status).toBe(1)
    expect((await say('explain', '198.51.100.7')).status).toBe(1)
    expect(await say('allow', '224.0.0.1')).toMatchObject({
      status: 1,
      text: expect.stringContaining('cannot be allowed'),
    })
  })

  test('report has each login with its daemons and methods', async () => {
    expect(await json('report')).toEqual([
      expect.objectContaining({
        login: 'demo',
        last_address: '127.0.0.1',
        tls: 'never',
        daemons: ['popup'],
        methods: ['pass'],
        hints: expect.arrayContaining(['no-tls']),
      }),
    ])
    expect((await say('report', '--csv')).text).toMatch(/^login,last_login,.*\ndemo,/)
  })
})

test('watch shows logins, relayed mail and clients that the gate did not let relay, as they happen', async () => {
  const watch = new Process('watch', commandOf('auth-relay', 'watch', '--config', config))
  // The login repeats, because watch may not have started when the first one comes. Each round has
  // a different address, because a use is recorded once a minute for each address.
  let round = 0
  await eventually('watch shows a login', async () => {
    round += 1
    const own = `127.0.1.${round}`
    const mailbox = Pop3Conversation.over(
      createConnection({ port: demo.port('popup'), host: '127.0.0.1', localAddress: own }),
    )
    await mailbox.login('demo', 'demo')
    await mailbox.quit()
    for (const localAddress of [own, '127.0.0.2']) {
      createConnection({ port: demo.port('wrap'), host: '127.0.0.1', localAddress })
        // The server may close before it has read the command.
        .on('error', () => {})
        .end('QUIT\r\n')
        .resume()
    }
    return watch.lines.some(line => / {2}grant {4}127\.0\.1\.\d+ +popup pass demo on \S+$/.test(line))
  })
  await watch.waitForLine(/ {2}relay {4}127\.0\.1\.\d+ +gate on \S+$/, 60_000)
  await watch.waitForLine(/ {2}closed {3}127\.0\.0\.2 {8}gate on \S+$/, 60_000)
  const times = watch.lines.flatMap(line => /^(\S+ \S+) {2}(?:grant|relay|closed ) /.exec(line)?.[1] ?? [])
  expect(times.length).toBeGreaterThan(2)
  expect(times, watch.lines.join('\n')).toEqual(times.toSorted())
  watch.signal('SIGINT')
  await watch.ended
})

test('check reports grant_loopback as unsafe in a demo, and nothing else', async () => {
  const { status, text } = await say('check', '--json')
  expect(status).toBe(1)
  const report: unknown = JSON.parse(text)
  expect(report).toMatchObject({ safe: false })
  const quiet = (await say('check', '--quiet')).text
  const plain = (await say('check')).text
  const all = (await say('check', '--settings')).text
  const findings = quiet.split('\n').filter(line => line.startsWith('unsafe'))
  const settingsOf = (output: string) =>
    output.split('\n').filter(line => / {2}\((?:default|line|environment)/.test(line))
  expect(settingsOf(quiet)).toEqual([])
  expect(settingsOf(all).length).toBeGreaterThan(150)
  expect(settingsOf(plain)).toEqual(settingsOf(all).filter(line => !line.endsWith('(default)')))
  expect(settingsOf(plain).length).toBeGreaterThan(0)
  expect(findings.filter(line => !line.includes('accounts'))).toEqual([
    expect.stringContaining('grants.grant_loopback'),
  ])
})

test('status of a stack under up lists every program with its supervisor, and no fault', async () => {
  const { status, text } = await say('status')
  for (const name of ['authd', 'popup', 'sslwrap', 'wrap', 'status-page']) {
    expect(text).toMatch(new RegExp(`^  ${name} +since [\\d-]+ [\\d:]+, pid \\d+, auth-relay up$`, 'm'))
  }
  expect(text).toMatch(/^ {2}logins, last hour +\d+ granted, \d+ refused$/m)
  expect(text.trim().split('\n').at(-1)).toBe('Nothing is wrong.')
  expect(status).toBe(0)
  // While the stack runs, each of its listeners belongs to the stack.
  expect((await say('check')).text).toMatch(/^fine +popup\.listen: popup listens on /m)
})

test('passwd adds an account that can log in at once, and removes it', async () => {
  const home = `${directory}/mail/demo`
  const file = `${directory}/passwd`
  const uid = String(process.geteuid?.() === 0 ? 61_195 : process.getuid?.())
  const added = await run(commandOf('auth-relay', 'passwd', 'ann', '--file', file, '--uid', uid, '--home', home), {
    input: 'sesame\n',
  })
  expect(result(added)).toMatchObject({ status: 0, text: expect.stringContaining('Added ann') })
  await eventually('ann can log in', async () => (await logIn('ann', 'sesame')).startsWith('+OK'))
  const removed = await run(commandOf('auth-relay', 'passwd', 'ann', '--file', file, '--remove'))
  expect(removed.ending?.code).toBe(0)
})

test('import and replay store grants for recent logins, and with --shadow none', async () => {
  const seconds = Math.floor(Date.now() / 1000)
  writeFileSync(
    `${path}/open-smtp`,
    `192.0.2.9:allow,RELAYCLIENT="",RBLSMTPD=""\t${seconds}\n192.0.2.10:allow,\t1000000000\nrubbish\n`,
  )
  expect(await json('import', 'open-smtp', `${path}/open-smtp`, '--shadow')).toEqual({
    found: 2,
    young: 1,
    never: 0,
    unreadable: 1,
    samples: [{ n: 3, text: 'rubbish' }],
    granted: null,
    refused: null,
  })
  expect((await say('explain', '192.0.2.9')).status).toBe(1)
  expect(await json('import', 'open-smtp', `${path}/open-smtp`)).toMatchObject({ granted: 1, refused: 0 })
  expect((await say('explain', '192.0.2.9')).status).toBe(0)

  const stamp = new Date(seconds * 1000).toISOString()
  writeFileSync(
    `${path}/mail.log`,
    `${stamp} mx ipop3d[7]: Login user=bob host=c.example.org [192.0.2.11] nmsgs=1/1\nnoise\n`,
  )
  expect(await json('replay', `${path}/mail.log`, '--dialect', 'all', '--shadow')).toMatchObject({
    lines: 2,
    granted: null,
  })
  expect((await say('explain', '192.0.2.11')).status).toBe(1)
  expect(await json('replay', `${path}/mail.log`, '--dialect', 'ipop3d')).toMatchObject({ granted: 1 })
  expect((await say('explain', '192.0.2.11')).text).toContain('ipop3d')
})

test('replay counts logins that are too old, and hints at a clock or zone that is ahead', async () => {
  const lineOf = (hours: number, ip: string) =>
    `${new Date(Date.now() + hours * 3_600_000).toISOString()} mx ipop3d[7]: Login user=bob host=c.example.org [${ip}] nmsgs=1/1\n`
  writeFileSync(`${path}/odd.log`, lineOf(-5, '192.0.2.21') + lineOf(-4, '192.0.2.22') + lineOf(3, '192.0.2.23'))
  const words = ['replay', `${path}/odd.log`, '--dialect', 'all', '--shadow']
  expect(await json(...words)).toMatchObject({ lines: 3, expired: 2, ahead: 1 })
  const { text } = await say(...words)
  expect(text).toContain('2 logins are too old by the stamp, so authd would grant nothing.')
  expect(text).toContain('1 login has a stamp in the future, because the daemon has another clock or time zone.')
})

test('without its database a verb reports the fault in one line and exits with 111', async () => {
  const elsewhere = temporaryDirectory()
  const file = `${elsewhere.path}/x.toml`
  writeFileSync(file, `configured = true\nstate_dir = "${elsewhere.path}"\n[database]\nembedded = true\n`, {
    mode: 0o600,
  })
  const program = await run(commandOf('auth-relay', 'show', '--config', file))
  expect(result(program)).toEqual({
    status: 111,
    text: `auth-relay: the embedded database of ${elsewhere.path} does not run: start it with auth-relay up`,
  })
  elsewhere.remove()
})

test('a real bash accepts the completion', async () => {
  const script = (await run(commandOf('auth-relay', 'completion'))).lines.join('\n')
  const complete = async (...words: readonly string[]): Promise<readonly string[]> => {
    const ask = `COMP_WORDS=(auth-relay ${words.join(' ')}); COMP_CWORD=${words.length}; _auth_relay`
    return (await run(['bash', '--norc', '-c', `${script}\n${ask}; printf '%s\\n' "\${COMPREPLY[@]}"`])).lines
  }
  expect(await complete('ex')).toEqual(['explain'])
  expect(await complete('show', '--j')).toEqual(['--json'])
  expect(await complete('import', 'dr')).toEqual(['drac'])
  expect(await complete('help', 'wat')).toEqual(['watch'])
  expect(await complete('device', 'ad')).toEqual(expect.arrayContaining(['add', 'adopt']))
  expect(await complete('device', 'add', '--per-h')).toEqual(['--per-hour'])
  expect(await complete('device', 'list', '--per-h')).toEqual([''])
  expect(await complete('alerts', '--da')).toEqual(['--days'])
})
