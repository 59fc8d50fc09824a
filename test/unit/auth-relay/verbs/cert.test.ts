import { spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { commandTree } from '../../../../src/auth-relay/command-line.ts'
import type { Action, Surroundings } from '../../../../src/auth-relay/verb.ts'
import { UsageFault } from '../../../../src/base/errors.ts'
import { makeCertificate } from '../../../harness/pop3/sslwrap.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const at = (name: string): string => `${directory.path}/${name}`

const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' })
makeCertificate(at('tls'), { names: ['pop.example.org'] })
makeCertificate(at('second'), { names: ['mail.example.net'], type: 'rsa' })
writeFileSync(at('other.key'), other, { mode: 0o600 })

/** `auth-relay cert` with these lines in `[sslwrap]`. */
async function cert(settings: string, ...words: readonly string[]): Promise<{ status: number; output: string }> {
  writeFileSync(at('settings.toml'), `configured = true\n[sslwrap]\n${settings}\n`)
  let output = ''
  let chosen: Action | undefined
  const surroundings: Surroundings = {
    environment: {},
    print: text => {
      output += text
    },
    isTerminal: false,
    columns: 80,
  }
  const tree = await commandTree(surroundings, action => {
    chosen = action
  })
  tree.parse(['cert', '--config', at('settings.toml'), ...words], { from: 'user' })
  if (chosen?.kind !== 'command') throw new Error('not understood')
  return { status: await chosen.run(), output }
}
const pair = (name: string, key = name) => `cert = "${at(`${name}.crt`)}"\nkey = "${at(`${key}.key`)}"`

test('every certificate of sslwrap: names, end, key', async () => {
  const { status, output } = await cert(`${pair('tls')}\n[[sslwrap.certificate]]\n${pair('second')}`)
  expect(output).toContain('names   DNS:pop.example.org\n')
  expect(output).toContain('names   DNS:mail.example.net\n')
  expect(output).toContain(`key     ${at('tls.key')} belongs to the certificate\n`)
  expect(status).toBe(0)
})

test.each([
  ['the key of another certificate', pair('tls', 'other'), /DOES NOT BELONG/],
  [
    'a certificate that is missing',
    `${pair('tls')}\n[[sslwrap.certificate]]\n${pair('gone')}`,
    /There is no .*gone\.crt/,
  ],
])('%s: status 1', async (_, settings, message) => {
  const { status, output } = await cert(settings)
  expect(output).toMatch(message)
  expect(status).toBe(1)
})

test('one JSON object for each line', async () => {
  const { output } = await cert(`${pair('tls')}\n[[sslwrap.certificate]]\n${pair('second')}`, '--json')
  const objects = output
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  expect(objects).toMatchObject([{ daysLeft: 89, keyFits: true }, { names: 'DNS:mail.example.net' }])
})

test('a request that openssl accepts, for the existing key', async () => {
  const { output } = await cert(pair('second'), '--csr', 'pop.example.org', '192.0.2.1')
  const { stdout, stderr } = spawnSync('openssl', ['req', '-noout', '-verify', '-text'], {
    input: output,
    encoding: 'utf8',
  })
  expect(stderr).toContain('verify OK')
  expect(stdout).toContain('DNS:pop.example.org, IP Address:192.0.2.1')
})

test('a missing certificate is a JSON object too', async () => {
  const { status, output } = await cert(`${pair('tls')}\n[[sslwrap.certificate]]\n${pair('gone')}`, '--json')
  const objects = output
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line))
  expect(objects).toEqual([
    expect.objectContaining({ file: at('tls.crt'), keyFits: true }),
    { file: at('gone.crt'), key: at('gone.key'), fault: `There is no ${at('gone.crt')}: sslwrap will not start.` },
  ])
  expect(status).toBe(1)
})

test.each([
  ['no-key', /other-no-key does not contain a private key in PEM form/],
  ['missing/tls.key', /cannot write .*missing\/tls\.key: ENOENT/],
])('--csr with the key %s is a usage fault', async (name, message) => {
  writeFileSync(at('other-no-key'), 'rubbish')
  const key = at(name === 'no-key' ? 'other-no-key' : name)
  const fault = await cert(pair('tls'), '--key', key, '--csr', 'pop.example.org').catch((error: unknown) => error)
  expect(fault).toBeInstanceOf(UsageFault)
  expect(fault).toMatchObject({ message: expect.stringMatching(message) })
})
