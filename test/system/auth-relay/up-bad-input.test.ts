import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { formatSettings, type Overrides } from '../../../src/auth-relay/text/settings-text.ts'
import { eventually } from '../../harness/eventually.ts'
import { processesNaming } from '../../harness/processes/demo.ts'
import { type Program, run } from '../../harness/processes/program.ts'
import { commandOf, TEST_IDS } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const isRoot = process.geteuid?.() === 0

let directory: ReturnType<typeof temporaryDirectory>
let config: string
const servers: Server[] = []

beforeEach(() => {
  directory = temporaryDirectory()
  config = `${directory.path}/auth-relay.toml`
})
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
  directory.remove()
})

/** A valid settings file, except for the fault of the test. */
function configure(overrides: Overrides = {}): void {
  const { path } = directory
  writeFileSync(`${path}/passwd`, '', { mode: 0o600 })
  writeFileSync(`${path}/sslhack.pass`, 'a secret of this test\n', { mode: 0o600 })
  const base: Overrides = {
    '': { configured: true, run_dir: `${path}/run`, state_dir: `${path}/state`, syslog: false },
    database: isRoot ? { embedded: true, embedded_user: `${TEST_IDS.database}` } : { embedded: true },
    popup: {
      listen: ['127.0.0.1:0'],
      login_user: `${TEST_IDS.login}`,
      passwd_file: `${path}/passwd`,
      ssl_hack_pass: `${path}/sslhack.pass`,
    },
    sslwrap: {
      listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:1' }],
      user: `${TEST_IDS.tls}`,
      cert: `${path}/tls.crt`,
      key: `${path}/tls.key`,
      workers: 1,
    },
    authd: { socket: `${path}/run/authd.sock`, usage_socket: '' },
  }
  const names = new Set([...Object.keys(base), ...Object.keys(overrides)])
  const merged = Object.fromEntries([...names].map(name => [name, { ...base[name], ...overrides[name] }]))
  writeFileSync(config, formatSettings(merged, { head: [], withDefaults: false }), { mode: 0o600 })
}

const up = (): Promise<Program> => run(commandOf('auth-relay', 'up', '--config', config))

/** Lines that are not log events: the messages for the administrator. */
const messagesOf = (program: Program): readonly string[] => program.lines.filter(line => !line.includes(' level='))

/** A port that another server uses. */
const takenPort = (): Promise<number> =>
  new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address()
      resolve(typeof address === 'object' && address !== null ? address.port : 0)
    })
    servers.push(server)
  })

describe('a failed start is reported in one line with the remedy, and leaves no process', () => {
  afterEach(() => expect(processesNaming(directory.path)).toEqual([]))

  test.runIf(isRoot).each([
    ['nobody', /^auth-relay: database\.embedded_user must not be nobody: /],
    ['65534', /^auth-relay: database\.embedded_user must not be 65534: /],
    ['65534:65533', /^auth-relay: database\.embedded_user must not be 65534:65533: /],
    [`${TEST_IDS.authd}`, /^auth-relay: database\.embedded_user and authd\.user are one account: /],
    [`${TEST_IDS.login}`, /^auth-relay: database\.embedded_user and popup\.login_user are one account: /],
    ['auth-relay-no-such', /^auth-relay: the account auth-relay-no-such does not exist: create it \(useradd --system /],
  ])('PostgreSQL under the account %s: 100', async (embedded_user, message) => {
    configure({ database: { embedded: true, embedded_user }, authd: { user: `${TEST_IDS.authd}` } })
    const program = await up()
    expect(program.ending?.code).toBe(100)
    expect(messagesOf(program)).toEqual([expect.stringMatching(message)])
  })

  test('a lock of another process: 111, and the message names no dead process', async () => {
    configure()
    const state = `${directory.path}/state`
    mkdirSync(state)
    writeFileSync(`${state}/up.lock`, '4194303\n', { mode: 0o644 })
    const holder = spawn('flock', ['-x', `${state}/up.lock`, 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] })
    await eventually('flock has the lock', () => spawnSync('flock', ['-n', `${state}/up.lock`, 'true']).status === 1)
    const program = await up()
    const ended = once(holder, 'close')
    holder.stdin.end()
    await ended
    expect(program.ending?.code).toBe(111)
    expect(messagesOf(program)).toEqual([
      `auth-relay: another process holds a lock on ${state}/up.lock: find it with fuser ${state}/up.lock and stop it`,
    ])
    expect(statSync(`${state}/up.lock`).mode & 0o777).toBe(0o600)
  })

  test('no settings file: 100', async () => {
    const program = await up()
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([
      `auth-relay: cannot read the settings file ${config}: it does not exist: create it with: auth-relay init --config ${config}`,
    ])
  })

  test('a file that is not TOML: 100, with its line', async () => {
    writeFileSync(config, 'configured = true\nlisten = [\n')
    const program = await up()
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([expect.stringMatching(/^auth-relay: .*auth-relay\.toml:\d+: /)])
  })

  test('wrong settings: 100, all faults at once, each in a separate line', async () => {
    writeFileSync(config, 'configured = true\n[popup]\nlisten = "nowhere"\nhostnam = "mx"\n[grants]\nexp_time = -1\n')
    const program = await up()
    expect(program.ending?.code).toBe(100)
    expect(program.lines.toSorted()).toEqual([
      expect.stringContaining(':3: popup.listen: must be a list of addresses'),
      expect.stringContaining(':4: popup.hostnam: unknown setting; did you mean hostname?'),
      expect.stringContaining(
        ':6: grants.exp_time: must be a duration from "1s" to "1d" in whole seconds, such as "30min"',
      ),
    ])
  })

  test('a file that the administrator has not confirmed: 100', async () => {
    configure({ '': { configured: false } })
    const program = await up()
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([expect.stringMatching(/read the file, then set configured = true/)])
  })

  test('a port in use: 111, before any program is started', async () => {
    const port = await takenPort()
    configure({ popup: { listen: [`127.0.0.1:${port}`] } })
    const program = await up()
    expect(program.ending?.code).toBe(111)
    expect(program.lines).toEqual([
      `auth-relay: 127.0.0.1:${port} is in use: stop the other server or change popup.listen`,
    ])
  })

  test('an invalid key: 100 or 111, reported by sslwrap, and the other programs are stopped', async () => {
    configure()
    writeFileSync(`${directory.path}/tls.crt`, 'this is no certificate\n')
    writeFileSync(`${directory.path}/tls.key`, 'this is no key\n', { mode: 0o600 })
    const program = await up()
    expect([100, 111]).toContain(program.ending?.code)
    expect(messagesOf(program).filter(line => line.startsWith('auth-relay: '))).toEqual([
      expect.stringMatching(/^auth-relay: sslwrap: .*tls\.(crt|key)/),
    ])
  })

  test.runIf(process.geteuid?.() === 0)('a key that the account may not read: 100', async () => {
    configure()
    writeFileSync(`${directory.path}/tls.crt`, 'of another account\n')
    writeFileSync(`${directory.path}/tls.key`, 'of another account\n', { mode: 0o600 })
    chmodSync(config, 0o644)
    chmodSync(`${directory.path}/sslhack.pass`, 0o600)
    const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
    const program = await run([...nobody, ...commandOf('auth-relay', 'up', '--config', config)])
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([expect.stringMatching(/sslwrap\.key: \S+tls\.key cannot be read: give it to/)])
  })

  test('the default secret: 100', async () => {
    configure()
    writeFileSync(`${directory.path}/sslhack.pass`, 'password\n', { mode: 0o600 })
    const program = await up()
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([
      expect.stringMatching(/sslhack\.pass holds the default secret: write a random one$/),
    ])
  })

  test('no database: 111, and no program is started', async () => {
    const port = await takenPort()
    servers.splice(0).map(server => server.close())
    configure({ database: { embedded: false, dbhost: '127.0.0.1', dbport: port } })
    const program = await up()
    expect(program.ending?.code).toBe(111)
    expect(program.lines).toEqual([
      expect.stringMatching(
        new RegExp(`^auth-relay: no database: .*: start PostgreSQL at 127.0.0.1:${port}, or change`),
      ),
    ])
  })
})

describe('the demo', () => {
  test('a port in use: 111, with the variable that changes it', async () => {
    const port = await takenPort()
    const program = await run(commandOf('auth-relay', 'up', '--demo', '--dir', `${directory.path}/var`), {
      env: { POP3_PORT: String(port), POP3S_PORT: '0', SMTP_PORT: '0' },
    })
    expect(program.ending?.code).toBe(111)
    expect(program.lines).toEqual([
      `auth-relay: port ${port} on 127.0.0.1 is in use: stop the other server, or choose another port: POP3_PORT=0 takes a free one`,
    ])
  })

  test('an invalid port: 100', async () => {
    const program = await run(commandOf('auth-relay', 'up', '--demo'), { env: { SMTP_PORT: 'smtp' } })
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([expect.stringContaining('SMTP_PORT=smtp is not a port')])
  })
})

describe('invalid arguments: 100', () => {
  test.each([
    [['shwo'], 'there is no verb shwo; did you mean show?: see auth-relay --help'],
    [['up', '--dmeo'], 'unknown option --dmeo; did you mean --demo?: see auth-relay up --help'],
    [['explain', 'example.org'], 'example.org is not an address: write it in numbers, 192.0.2.7 or 2001:db8::7'],
    [['allow', '192.0.2.7/24'], '192.0.2.7/24 has bits set behind its prefix: did you mean 192.0.2.0/24?'],
    [['revoke', 'ann', '--for', 'ever'], '--for ever is not a duration: write 90s, 30min, 8h, 2d or 1w'],
    [['test-line', '--dialect', 'dovcot'], 'there is no dialect dovcot; did you mean dovecot?'],
    [[], 'a verb is missing: auth-relay --help'],
  ])('%j', async (words, line) => {
    const program = await run(commandOf('auth-relay', ...words))
    expect(program.ending?.code).toBe(100)
    expect(program.lines).toEqual([expect.stringContaining(`auth-relay: ${line}`)])
  })
})

test('a closed pipe at standard output ends the command without a message', async () => {
  const words = commandOf('auth-relay', 'test-line').join(' ')
  const program = await run(['/bin/sh', '-c', `yes rubbish | head -n 100000 | ${words} | head -n 1`])
  expect(program.lines).toEqual([expect.stringContaining('    1  ignore  not a syslog line: ')])
})
