import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { commandOf, type ProgramName, Stack, type TestSettings } from '../../harness/stack.ts'

const DAEMONS = ['popup', 'sslwrap', 'authd', 'wrap'] as const
const ALL = [...DAEMONS, 'auth-relay'] as const

let stack: Stack
let servers: Server[] = []
beforeEach(() => {
  stack = new Stack()
})
afterEach(async () => {
  for (const server of servers) server.close()
  servers = []
  await stack.stop()
})

/** A port of 127.0.0.1 where another server listens. */
const takenPort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    servers.push(server)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      if (address === null || typeof address === 'string') reject(new Error('no port'))
      else resolve(address.port)
    })
  })

type Refusal = { readonly status: number; readonly lines: readonly string[] }

/**
 * Starts a program that must refuse to run. Returns its status and its output when the program and
 * all its children have ended.
 */
async function refusalOf(
  name: ProgramName,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Refusal> {
  const program = stack.launch(name, { args, env })
  await program.waitFor(`${name} ends`, () => program.ending)
  await eventually('no process of the program is left', () => processesOf(stack.directory).length === 0)
  expect(program.lines.join('\n')).not.toMatch(/^ {4}at |internal error|ready/m)
  return { status: program.ending?.code ?? -1, lines: program.lines }
}

/** Processes whose command line or working directory names the directory. */
const processesOf = (directory: string): readonly string[] =>
  readdirSync('/proc')
    .filter(entry => /^\d+$/.test(entry))
    .map(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      } catch {
        return '' // the process has ended meanwhile
      }
    })
    .filter(commandLine => commandLine.includes(directory))

const start = (name: ProgramName): readonly string[] => [
  ...(name === 'auth-relay' ? ['up'] : []),
  '--config',
  stack.config,
]

/** Valid settings of each program, except for the fault of the test. */
const settings = (changes: TestSettings = {}): TestSettings => {
  const base: TestSettings = {
    database: { dbhost: `${stack.directory}/nowhere` },
    popup: { listen: ['127.0.0.1:0'] },
    sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:9' }] },
    // There is no database to wait for.
    wrap: { listen: ['127.0.0.1:0'], wrap_timeout: '1s' },
  }
  const names = new Set([...Object.keys(base), ...Object.keys(changes)])
  return Object.fromEntries([...names].map(name => [name, { ...base[name], ...changes[name] }]))
}

describe.each(ALL)('%s', name => {
  test('no settings file: the message names the path, and the command that makes a file', async () => {
    rmSync(stack.config)
    const { status, lines } = await refusalOf(name, start(name))
    expect(lines).toEqual([
      `${name}: cannot read the settings file ${stack.config}: it does not exist: create it with: auth-relay init --config ${stack.config}`,
    ])
    expect(status).toBe(100)
  })

  test('a settings file that is not TOML: the message names the line', async () => {
    writeFileSync(stack.config, 'configured = true\n[popup\n')
    const { status, lines } = await refusalOf(name, start(name))
    expect(lines).toEqual([expect.stringMatching(new RegExp(`^${name}: ${stack.config}:2: .+`))])
    expect(status).toBe(100)
  })

  test('wrong settings: the message names every fault with its line', async () => {
    writeFileSync(
      stack.config,
      'configured = true\n[popup]\nlisten = ["nowhere"]\n[grants]\nexp_tim = 60\nalrm_time = 0\n',
    )
    const { status, lines } = await refusalOf(name, start(name))
    expect([...lines].sort()).toEqual([
      `${name}: ${stack.config}:3: popup.listen[0]: must be "ADDRESS:PORT", "[IPV6]:PORT", "*:PORT" or "unix:/PATH"`,
      `${name}: ${stack.config}:5: grants.exp_tim: unknown setting; did you mean exp_time?`,
      `${name}: ${stack.config}:6: grants.alrm_time: must be a duration from "1s" to "1h" in whole seconds, such as "1min"`,
    ])
    expect(status).toBe(100)
  })

  test('a wrong override in the environment: the message names the variable', async () => {
    const { status, lines } = await refusalOf(name, start(name), { EXP_TIME: 'soon' })
    expect(lines).toEqual([
      `${name}: environment EXP_TIME: grants.exp_time: must be a duration from "1s" to "1d" in whole seconds, such as "30min"`,
    ])
    expect(status).toBe(100)
  })

  test('not configured: the message names the remedy', async () => {
    stack.configure({ '': { configured: false } })
    const { status, lines } = await refusalOf(name, start(name))
    expect(lines).toEqual([
      `${name}: ${stack.config}: read the file, then set configured = true; then run: auth-relay check --config ${stack.config}`,
    ])
    expect(status).toBe(100)
  })

  test('an unknown option: the message shows the usage', async () => {
    const { status, lines } = await refusalOf(name, ['--confg', stack.config])
    expect(lines.join('\n')).toContain('--confg')
    expect(lines[0]).toMatch(new RegExp(`^${name}: `))
    expect(status).toBe(100)
  })

  test('--help and --version print usage and version on standard output', async () => {
    const help = await stack.run(name, ['--help'])
    expect([help.ending?.code, help.lines.join('\n')]).toEqual([0, expect.stringMatching(/usage/i)])
    const version = await stack.run(name, ['--version'])
    expect([version.ending?.code, version.lines]).toEqual([0, [expect.stringMatching(/\d+\.\d+\.\d+/)]])
  })
})

describe('a port in use', () => {
  test.each(['popup', 'sslwrap', 'wrap'] as const)(
    '%s: the exit status is temporary, and the setting is named',
    async name => {
      const port = await takenPort()
      const listen = `127.0.0.1:${port}`
      stack.configure(
        settings({
          popup: { listen: ['127.0.0.1:0', listen] },
          sslwrap: {
            listener: [
              { listen: '127.0.0.1:0', backend: '127.0.0.1:9' },
              { listen, backend: '127.0.0.1:9' },
            ],
          },
          wrap: { listen: ['127.0.0.1:0', listen] },
        }),
      )
      const { status, lines } = await refusalOf(name, start(name))
      const faults = lines.filter(line => line.startsWith(`${name}: ${listen}`))
      expect(faults).toEqual([
        expect.stringMatching(
          new RegExp(`^${name}: ${listen} is in use: stop the other server or change ${name}\\.liste`),
        ),
      ])
      expect(status).toBe(111)
    },
  )

  test('authd: another authd has the socket', async () => {
    stack.configure(settings())
    const server = createServer()
    servers.push(server)
    await new Promise<void>(resolve => server.listen(`${stack.directory}/run/authd.sock`, resolve))
    const { status, lines } = await refusalOf('authd', start('authd'))
    expect(lines.at(-1)).toBe(
      `authd: ${stack.directory}/run/authd.sock is in use: stop the other server or change authd.socket`,
    )
    expect(status).toBe(111)
  })

  test('auth-relay up: the program and its line; all other programs are stopped again', async () => {
    const listen = `127.0.0.1:${await takenPort()}`
    stack.configure(settings({ database: { embedded: true }, wrap: { listen: [listen] } }))
    const { status, lines } = await refusalOf('auth-relay', start('auth-relay'))
    expect(lines.join('\n')).toContain(`${listen} is in use: stop the other server or change wrap.listen`)
    expect(status).toBe(111)
    expect(existsSync(`${stack.directory}/run/authd.sock`)).toBe(false)
  })
})

describe('keys and certificates of sslwrap', () => {
  const attempt = async (): Promise<Refusal> => {
    stack.configure(settings())
    return refusalOf('sslwrap', start('sslwrap'))
  }
  test.each([
    ['no key beside a certificate', () => writeFileSync(`${stack.directory}/tls.crt`, 'x')],
    [
      'a certificate that is not in PEM form',
      () => stack.secret('tls.key', 'x') && writeFileSync(`${stack.directory}/tls.crt`, 'x'),
    ],
    ['a key that is a directory', () => mkdirSync(`${stack.directory}/tls.key`)],
  ])('%s', async (_what, prepare) => {
    prepare()
    const { status, lines } = await attempt()
    expect(lines).toEqual([expect.stringMatching(new RegExp(`^sslwrap: .*${stack.directory}/tls\\.`))])
    expect(status).toBe(100)
  })

  test('a key that every account can read, and a key of another certificate', async () => {
    stack.configure(settings())
    const first = await stack.start('sslwrap')
    await first.stop()
    chmodSync(`${stack.directory}/tls.key`, 0o644)
    const open = await attempt()
    expect(open.lines).toEqual([expect.stringMatching(new RegExp(`^sslwrap: .*${stack.directory}/tls\\.key.*chmod`))])
    expect(open.status).toBe(100)
    const certificate = readFileSync(`${stack.directory}/tls.crt`)
    rmSync(`${stack.directory}/tls.crt`)
    rmSync(`${stack.directory}/tls.key`)
    const second = await stack.start('sslwrap')
    await second.stop()
    writeFileSync(`${stack.directory}/tls.crt`, certificate)
    const foreign = await attempt()
    expect(foreign.lines).toEqual([expect.stringMatching(new RegExp(`^sslwrap: .*${stack.directory}/tls\\.`))])
    expect(foreign.status).toBe(100)
  })
})

describe('secrets', () => {
  test.each(['popup', 'sslwrap', 'auth-relay'] as const)('%s refuses the preamble password "password"', async name => {
    stack.configure(settings({ database: { embedded: true } }))
    stack.secret('sslhack.pass', 'password')
    const { status, lines } = await refusalOf(name, start(name))
    const line = `secret file ${stack.directory}/sslhack.pass holds the default secret: write a random one`
    expect(lines.filter(text => text.includes('sslhack.pass'))).toEqual([expect.stringContaining(line)])
    expect(lines.at(-1)).toContain(line)
    expect(status).toBe(100)
  })

  test.each(['popup', 'sslwrap'] as const)('%s refuses a preamble password that every account can read', async name => {
    stack.configure(settings())
    chmodSync(`${stack.directory}/sslhack.pass`, 0o644)
    const { status, lines } = await refusalOf(name, start(name))
    expect(lines.at(-1)).toContain(`chmod o-rwx ${stack.directory}/sslhack.pass`)
    expect(status).toBe(100)
  })

  test.each([
    ['authd', 'DBPASS'],
    ['wrap', 'WRAP_DBPASS'],
  ] as const)('%s refuses the database password "password"', async (name, variable) => {
    stack.configure(settings())
    const { status, lines } = await refusalOf(name, start(name), { [variable]: 'password' })
    expect(lines.at(-1)).toMatch(new RegExp(`^${name}: .*${variable.toLowerCase()}`))
    expect(status).toBe(100)
  })
})

describe('needs of popup', () => {
  test('a passwd file that is missing, or open to every account', async () => {
    stack.configure(settings())
    chmodSync(`${stack.directory}/passwd`, 0o644)
    const open = await refusalOf('popup', start('popup'))
    expect(open.lines).toEqual([expect.stringMatching(new RegExp(`^popup: .*${stack.directory}/passwd.*chmod`))])
    rmSync(`${stack.directory}/passwd`)
    const missing = await refusalOf('popup', start('popup'))
    expect(missing.lines).toEqual([expect.stringMatching(new RegExp(`^popup: .*${stack.directory}/passwd`))])
    expect([open.status, missing.status]).toEqual([100, 100])
  })

  test('an account that is missing', async () => {
    stack.configure(settings({ popup: { login_user: 'no-such-account' } }))
    const { status, lines } = await refusalOf('popup', start('popup'))
    expect(lines).toEqual([
      'popup: the account no-such-account does not exist: create it (useradd --system no-such-account) or change popup.login_user',
    ])
    expect(status).toBe(100)
  })
})

describe('no database', () => {
  test('auth-relay up: one line that names the server', async () => {
    stack.configure(settings())
    const { status, lines } = await refusalOf('auth-relay', start('auth-relay'))
    expect(lines.at(-1)).toMatch(new RegExp(`^auth-relay: .*${stack.directory}/nowhere`))
    expect(status).toBe(111)
  })

  test('authd: one line that names the server; it starts, grants nothing and keeps trying', async () => {
    stack.configure(settings())
    const authd = await stack.start('authd')
    const { fields } = await stack.waitForLog('authd', { level: 'error', event: 'database_unavailable', state: 'down' })
    expect(fields['reason']).toContain(`${stack.directory}/nowhere`)
    expect(fields['remedy']).toContain('start PostgreSQL')
    expect(await authd.stop()).toEqual({ code: 0, signal: null })
  })

  test('commands: one line with the remedy', async () => {
    stack.configure(settings())
    for (const args of [
      ['show'],
      ['allow', '192.0.2.7'],
      ['block', '192.0.2.7'],
      ['explain', '192.0.2.7'],
      ['migrate'],
    ]) {
      const { status, lines } = await refusalOf('auth-relay', [...args, '--config', stack.config])
      expect(lines).toEqual([
        expect.stringMatching(new RegExp(`^auth-relay: .*${stack.directory}/nowhere.*change database`)),
      ])
      expect(status).toBe(111)
    }
  })
})

test('every built program refuses a settings file that it may not read', async () => {
  for (const name of ALL) expect(existsSync(commandOf(name)[1] ?? '')).toBe(true)
  rmSync(stack.config)
  mkdirSync(stack.config)
  for (const name of ALL) {
    const { status, lines } = await refusalOf(name, start(name))
    expect(lines).toEqual([expect.stringContaining(`${name}: cannot read the settings file ${stack.config}: `)])
    expect(status).toBe(100)
  }
})
