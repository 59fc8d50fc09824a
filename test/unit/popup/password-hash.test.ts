import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { verifyApop, verifyPassword } from '../../../src/popup/checkers/password-hash.ts'

describe('verifyPassword', () => {
  test.each([
    ['DES', 'abNANd1rDfiNc'],
    ['extended DES', '_J9..rasmz0.F/jqjWck'],
    ['MD5', '$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1'],
    ['SHA-256', '$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.'],
    ['SHA-512', '$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.'],
    ['bcrypt', '$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW'],
    ['yescrypt', '$y$j75$abcdefgh$uMUXG79B2cFpoAYyDccUnsaH/aGTyBYMlnQidzyag01'],
    ['gost-yescrypt', '$gy$j75$abcdefgh$lRD8hCfuUnaykqHEd24aR4OED0E.hiL5k0lM9Kg0qT5'],
    ['scrypt', '$7$CU..../....abcdefgh$XWs9HxtpA2.6U5CDBBbcW.h3o9pYlC.MIIb8JqMgZx6'],
    ['argon2id', '$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$pclxcsa4X0bZ5lu7Vy5h3p7EU7VbuW7pGRWETxHuU0c'],
    ['{CRYPT}', '{CRYPT}$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1'],
    [
      '{sha512-crypt}',
      '{sha512-crypt}$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.',
    ],
    ['{PLAIN}', '{PLAIN}secret'],
    ['{SSHA}', '{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0'],
    ['{SHA256}', '{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols='],
    ['{PLAIN-MD5}', '{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69'],
    ['{MD5} of vpopmail and Dovecot', '{MD5}$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1'],
  ])('%s: the right password and no other', async (_, stored) => {
    expect(await verifyPassword('secret', stored)).toBe(true)
    expect(await verifyPassword('Secret', stored)).toBe(false)
    expect(await verifyPassword('secret ', stored)).toBe(false)
  })

  test('argon2id: the vector of the reference implementation', async () => {
    const stored = '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc'
    expect(await verifyPassword('password', stored)).toBe(true)
  })

  test.each([
    '',
    '!',
    '*',
    '!$6$x$y',
    '{PLAIN}',
    '{CRYPT}',
    '{NOSUCH}secret',
    '$argon2id$v=19$m=0,t=0,p=0$x$y',
    '{SSHA}AAAA',
  ])('%j is not a hash', async stored => {
    expect(await verifyPassword('secret', stored)).toBeUndefined()
  })

  test('an empty password is never right', async () => {
    expect(await verifyPassword('', '{PLAIN}')).toBeUndefined()
    expect(await verifyPassword('', '$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1')).toBeUndefined()
  })

  test('a password is octets: one in UTF-8, and one that is not', async () => {
    const utf8 = Buffer.from('pässwort').toString('latin1')
    expect(await verifyPassword(utf8, '{PLAIN}pässwort')).toBe(true)
    expect(await verifyPassword('p\xe4sswort', '{PLAIN}pässwort')).toBe(false)
  })

  property.prop([fc.string(), fc.string({ unit: 'binary' })])(
    'never throws, for any stored text',
    async (password, stored) => {
      const octets = Buffer.from(password).toString('latin1')
      expect([true, false, undefined]).toContain(await verifyPassword(octets, `{SSHA}${stored}`))
      expect([true, false, undefined]).toContain(await verifyPassword(octets, `$argon2id$${stored}`))
    },
  )
})

describe('verifyApop', () => {
  const timestamp = '<1896.697170952@dbc.mtview.ca.us>'
  test('the example of RFC 1939 §7', () => {
    expect(verifyApop('c4c9334bac560ecc979e58001b3e22fb', timestamp, 'tanstaaf')).toBe(true)
    expect(verifyApop('c4c9334bac560ecc979e58001b3e22fb', timestamp, 'tanstaag')).toBe(false)
    expect(verifyApop('C4C9334BAC560ECC979E58001B3E22FB', timestamp, 'tanstaaf')).toBe(false)
    expect(verifyApop('', timestamp, 'tanstaaf')).toBe(false)
  })
})
