import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { UsageFault } from '../../../src/base/errors.ts'
import { parseCommandLine } from '../../../src/sslwrap/command-line.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const passwordFile = `${directory.path}/sslhack.pass`
writeFileSync(passwordFile, 'a secret\n', { mode: 0o600 })
const environment = { SSL_HACK_PASS: passwordFile }

const parse = (line: string, env: Record<string, string> = environment) =>
  parseCommandLine(line === '' ? [] : line.split(' '), env)
const faultsOf = (line: string, env?: Record<string, string>): readonly string[] => {
  try {
    parse(line, env)
  } catch (error) {
    if (error instanceof UsageFault) return error.faults
  }
  throw new Error('no fault')
}

test('the command line of auth-relay', () => {
  expect(parse('')).toEqual({ kind: 'daemon', config: '/etc/auth-relay.toml' })
  expect(parse('--config /x.toml')).toEqual({ kind: 'daemon', config: '/x.toml' })
  expect(parse('--help')).toEqual({ kind: 'about', text: expect.stringContaining('Usage: sslwrap') })
  expect(parse('--version')).toMatchObject({ kind: 'about' })
  expect(faultsOf('--confg x')).toEqual(['unknown option --confg: see sslwrap --help'])
})

describe("the original's command line", () => {
  test('stand-alone in front of a port', () => {
    const invocation = parse(
      '-cert /etc/a.pem -key /etc/a.key -addr 192.0.2.1 -port pop3 -accept 995 -quiet -no_ssl2 -bugs',
    )
    expect(invocation).toMatchObject({
      kind: 'stand-alone',
      plan: {
        logLevel: 'warn',
        listeners: [
          {
            listen: { kind: 'tcp', host: '::', port: 995 },
            backend: { kind: 'tcp', host: '192.0.2.1', port: 110 },
            preamble: 'ssl',
            protocol: 'pop3',
            certificates: [{ cert: '/etc/a.pem', key: '/etc/a.key' }],
          },
        ],
      },
    })
  })

  test('under inetd, with a program that gets the rest of the line', () => {
    expect(parse('-cert /etc/a.pem -exec qmail-popup host -debug', {})).toMatchObject({
      kind: 'inetd',
      program: ['qmail-popup', 'host', '-debug'],
      user: undefined,
      plan: {
        logLevel: 'info',
        listeners: [{ preamble: 'none', certificates: [{ cert: '/etc/a.pem', key: undefined }] }],
      },
    })
    expect(parse('-port 110 -preamble proxy-v1 -user nobody', {})).toMatchObject({
      kind: 'inetd',
      program: undefined,
      user: 'nobody',
      plan: { listeners: [{ preamble: 'proxy-v1' }] },
    })
  })

  test.each([
    ['-nocert -port 110', /anonymous encryption/],
    ['-ssl2 -port 110', /SSL 2.0 is insecure/],
    ['-ssl3 -port 110', /SSL 3.0 is insecure/],
    ['-cert x', /either -port or -exec/],
    ['-port 110 -exec x', /either -port or -exec/],
    ['-exec', /name the program/],
    ['-accept 995 -exec x', /tcpserver/],
    ['-port 0', /-port 0: must be a port/],
    ['-port nosuchservice', /must be a port/],
    ['-port .*', /must be a port/],
    ['-port 110 -addr host', /IPv4/],
    ['-port 110 -preamble x', /must be one of/],
    ['-port 110 -Verify 1', /need -CAfile/],
    ['-port', /value is missing/],
    ['-port 110 -what', /^unknown option -what: see sslwrap --help$/],
    ['mail.example.org', /^unknown argument mail.example.org: see sslwrap --help$/m],
  ])('refused: %s', (line, message) => {
    expect(faultsOf(line).join('\n')).toMatch(message)
  })

  test('a port is a number, a name or an alias in the file of services', () => {
    const services = `${directory.path}/services`
    writeFileSync(
      services,
      '# pop3 1/tcp\npop3 2/udp\npop3\t\t110/tcp pop-3 # POP version 3\nsubmissions 465/tcp ssmtp smtps\n',
    )
    const backendOf = (port: string) => parseCommandLine(['-port', port, '-accept', '995'], environment, services)
    for (const [name, port] of Object.entries({ pop3: 110, 'pop-3': 110, smtps: 465, 2525: 2525 })) {
      expect(backendOf(name)).toMatchObject({ plan: { listeners: [{ backend: { port } }] } })
    }
    for (const name of ['version', 'pop', 'POP3', '']) expect(() => backendOf(name)).toThrow(UsageFault)
  })

  test('on a host without the file of services a port is a number', () => {
    const services = `${directory.path}/missing-services`
    const parseWithout = (port: string) => parseCommandLine(['-port', port], environment, services)
    expect(parseWithout('110')).toMatchObject({ kind: 'inetd' })
    expect(() => parseWithout('pop3')).toThrow(
      new UsageFault(`-port pop3: must be a port number or a name in ${services}`),
    )
  })

  test('a file of -CApath with several names is read once', () => {
    const authorities = `${directory.path}/authorities`
    mkdirSync(`${authorities}/java`, { recursive: true })
    for (const name of ['a.pem', 'b.pem']) writeFileSync(`${authorities}/${name}`, '')
    symlinkSync('a.pem', `${authorities}/5ed36f99.0`)
    symlinkSync('b.pem', `${authorities}/cd8c0d63.0`)
    expect(parse(`-port 110 -Verify 1 -CApath ${authorities}`)).toMatchObject({
      plan: { clientCaFiles: [`${authorities}/a.pem`, `${authorities}/b.pem`] },
    })
    expect(parse(`-port 110 -Verify 1 -CApath ${authorities} -CAfile ${authorities}/b.pem`)).toMatchObject({
      plan: { clientCaFiles: [`${authorities}/b.pem`, `${authorities}/a.pem`] },
    })
    symlinkSync('gone.pem', `${authorities}/d6325660.0`)
    expect(faultsOf(`-port 110 -Verify 1 -CApath ${authorities}`).join()).toMatch(/-CApath .*d6325660\.0/)
  })

  test('all faults together', () => {
    expect(faultsOf('-nocert -ssl3 -port x%')).toHaveLength(3)
  })
})

describe('the shared password', () => {
  test.each([
    ['missing', undefined, 0o600, /cannot read the secret file/],
    ['empty', '', 0o600, /holds no secret/],
    ['the default', 'password\n', 0o600, /default secret/],
    ['open to all', 'a secret\n', 0o604, /open to every user/],
  ])('%s: refused', (name, content, mode, message) => {
    const path = `${directory.path}/${name.replaceAll(' ', '-')}`
    if (content !== undefined) {
      writeFileSync(path, content)
      chmodSync(path, mode)
    }
    expect(faultsOf('-port 110', { SSL_HACK_PASS: path }).join()).toMatch(message)
  })
})
