import { chmodSync, mkdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { makeMaildrop, remedyForMissing } from '../../../src/auth-relay/maildrop.ts'
import { accountWithUid } from '../../../src/libc/accounts.ts'
import { isRoot } from '../../../src/process/privileges.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)
// As root the owner is another account, as on a mail host.
const account = accountWithUid(isRoot() ? 65_534 : (process.getuid?.() ?? -1))
if (account === undefined) throw new Error('this host has no account for the test')
const home = `${path}/home`
const owner = { ...account, home }
const maildrop = { uid: owner.uid, gid: owner.gid, maildir: `${home}/Maildir` }

beforeEach(() => {
  chmodSync(path, 0o755)
  rmSync(home, { recursive: true, force: true })
})

test('a missing maildrop is made with its home, for its owner alone, and is kept the next time', () => {
  expect(remedyForMissing(maildrop)).toMatch(/^install -d -m 700 -o \d+ -g \d+ /)
  makeMaildrop(owner)
  makeMaildrop(owner)
  for (const folder of [home, `${home}/Maildir`, `${home}/Maildir/new`, `${home}/Maildir/cur`, `${home}/Maildir/tmp`]) {
    const { uid, gid, mode } = statSync(folder)
    expect({ uid, gid, mode: mode & 0o7777 }).toEqual({ uid: owner.uid, gid: owner.gid, mode: 0o700 })
  }
  expect(remedyForMissing(maildrop)).toBeUndefined()
})

test.runIf(isRoot())('a link in the home of the owner makes nothing where the owner may not write', () => {
  mkdirSync(`${path}/of-root`, { mode: 0o700 })
  mkdirSync(home)
  symlinkSync(`${path}/of-root/mail`, `${home}/Maildir`)
  expect(() => makeMaildrop(owner)).toThrow(/^cannot make .*\/home\/Maildir for /)
  expect(statSync(`${path}/of-root/mail`, { throwIfNoEntry: false })).toBeUndefined()
})

test('a path that is not a home directory is named with the remedy', () => {
  expect(() => makeMaildrop({ ...owner, home: '/dev/null/home' })).toThrow(
    /^cannot make .*: start as root, or make the maildrop first$/,
  )
})
