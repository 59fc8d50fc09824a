import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { changeEnvironment, formatEnvironment, parseEnvironment } from '../../../src/ucspi/environment.ts'

test('a formatted environment is parsed back, with octets outside UTF-8', () => {
  const name = fc.stringMatching(/^[A-Z_][A-Z0-9_]{0,8}$/)
  const bytes = fc.uint8Array({ maxLength: 20 }).map(value => value.map(byte => byte || 1))
  fc.assert(
    fc.property(fc.dictionary(name, bytes), variables => {
      const block = Buffer.concat(
        formatEnvironment(variables).map(entry =>
          Buffer.concat([typeof entry === 'string' ? Buffer.from(entry) : entry, Buffer.from([0])]),
        ),
      )
      const parsed = parseEnvironment(block)
      expect(Object.keys(parsed)).toEqual(Object.keys(variables))
      for (const [key, value] of Object.entries(variables)) {
        const got = parsed[key] ?? 'missing'
        expect(Buffer.from(typeof got === 'string' ? Buffer.from(got) : got)).toEqual(Buffer.from(value))
      }
    }),
  )
})

test('any octets can be parsed', () => {
  const octet = fc.oneof(fc.constantFrom(0, 0x3d, 0x41), fc.integer({ min: 0, max: 255 }))
  fc.assert(
    fc.property(fc.array(octet, { maxLength: 200 }), octets => {
      const names = Object.keys(parseEnvironment(Uint8Array.from(octets)))
      expect(names.filter(name => name === '' || /[\0=]/.test(name))).toEqual([])
    }),
  )
})

test('of two variables the first counts, an empty value is a value, and an entry without a name is omitted', () => {
  expect(parseEnvironment(Buffer.from('A=1\0A=2\0RELAYCLIENT=\0=x\0word\0B=a=b'))).toEqual({
    A: '1',
    RELAYCLIENT: '',
    B: 'a=b',
  })
})

test('changes set and remove variables', () => {
  expect(changeEnvironment({ A: '1', B: '2' }, { A: undefined, C: '3', B: '' })).toEqual({ B: '', C: '3' })
})

test('the environment of the process is read octet for octet', () => {
  const source = `
    import { ownEnvironment } from ${JSON.stringify(join(import.meta.dirname, '../../../src/ucspi/environment.ts'))}
    const value = ownEnvironment().TCPREMOTEINFO
    process.stdout.write(Buffer.from(value).toString('hex'))`
  const child = spawnSync(
    '/bin/sh',
    [
      '-c',
      `TCPREMOTEINFO=$(printf 'a\\377b') exec "$0" --input-type=module-typescript -e "$1"`,
      process.execPath,
      source,
    ],
    {
      encoding: 'utf8',
    },
  )
  expect(child.stdout).toBe('61ff62')
})
