import { expect, test } from 'vitest'
import { crypt } from '../../../src/libc/accounts.ts'

const KNOWN = [
  ['traditional DES', 'rasmuslerdorf', 'rl.3StKT.4T8M'],
  ['MD5', 'rasmuslerdorf', '$1$rasmusle$rISCgZzpwk3UhDidwXvin0'],
  ['SHA-256', 'Hello world!', '$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5'],
  [
    'SHA-512',
    'Hello world!',
    '$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1',
  ],
  ['bcrypt', 'U*U', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'],
] as const

test.each(KNOWN)('%s: a stored hash is a valid setting', async (_method, password, hash) => {
  expect(await crypt(password, hash)).toBe(hash)
  expect(await crypt(`x${password}`, hash)).not.toBe(hash)
})

test('yescrypt, the default of Debian 12, is supported', async () => {
  const setting = '$y$j9T$ODvKGOYyPYEIzRJYBJDQY0$'
  expect(await crypt('secret', setting)).toMatch(/^\$y\$j9T\$/)
})

test('a setting that the system refuses gives no hash, so that no hash can match', async () => {
  for (const setting of ['*', '*0', '!', '', '$nosuch$x']) expect(await crypt('secret', setting)).toBeUndefined()
})

test('a NUL does not end a password', async () => {
  expect(await crypt('rasmuslerdorf\0', 'rl.3StKT.4T8M')).toBeUndefined()
})

test('a slow hash does not block the event loop, and several run in parallel', async () => {
  let turns = 0
  const ticking = setInterval(() => turns++, 1)
  const hashes = await Promise.all(['a', 'b', 'a'].map(p => crypt(p, '$2a$10$CCCCCCCCCCCCCCCCCCCCC.')))
  clearInterval(ticking)
  expect(turns).toBeGreaterThan(3)
  expect(hashes[0]).toBe(hashes[2])
  expect(hashes[0]).not.toBe(hashes[1])
})
