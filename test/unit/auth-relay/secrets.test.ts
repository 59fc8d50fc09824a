import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { PasswordFile, writePrivateFile } from '../../../src/auth-relay/secrets.ts'
import { UsageFault } from '../../../src/base/errors.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

function directory(): string {
  const { path, remove } = temporaryDirectory()
  onTestFinished(remove)
  return path
}

test('a private file is replaced whole, with mode 0600', () => {
  const path = directory()
  writeFileSync(`${path}/secret`, 'old', { mode: 0o644 })
  writePrivateFile(`${path}/secret`, 'new\n')
  expect([readFileSync(`${path}/secret`, 'utf8'), statSync(`${path}/secret`).mode & 0o777]).toEqual(['new\n', 0o600])
  expect(readdirSync(path)).toEqual(['secret'])
})

test('on a full disk the old private file stays, and nothing else does', () => {
  const path = directory()
  writeFileSync(`${path}/passwd`, 'old')
  const module = new URL('../../../src/auth-relay/secrets.ts', import.meta.url).pathname
  // Beyond the limit of ulimit -f a write is short, and the next one fails, as on a full disk.
  const script = `
    import { writePrivateFile } from ${JSON.stringify(module)}
    try {
      writePrivateFile(${JSON.stringify(`${path}/passwd`)}, 'x'.repeat(5000))
    } catch (error) {
      process.stdout.write(error.code)
    }`
  const words = ['-c', 'ulimit -f 1 && exec "$@"', 'bash', process.execPath, '--input-type=module', '-e', script]
  expect(execFileSync('bash', words, { encoding: 'utf8' })).toBe('EFBIG')
  expect([readFileSync(`${path}/passwd`, 'utf8'), readdirSync(path)]).toEqual(['old', ['passwd']])
})

test('a passwd file that cannot be read or written is a usage fault with the remedy', async () => {
  const path = directory()
  mkdirSync(`${path}/passwd`)
  expect(() => new PasswordFile(`${path}/passwd`).has('ann')).toThrow(UsageFault)
  const missing = new PasswordFile(`${path}/missing/passwd`)
  expect(missing.has('ann')).toBe(false)
  await expect(missing.setPassword('ann', 'secret', '1:1:/:Maildir')).rejects.toThrow(UsageFault)
  await expect(missing.setPassword('ann', 'secret', '1:1:/:Maildir')).rejects.toThrow(
    /^cannot write .*missing\/passwd: ENOENT.*: start as root, or name another file$/,
  )
})

test('an account is added and removed, and other lines stay', async () => {
  const path = directory()
  writeFileSync(`${path}/passwd`, '# accounts\nbob:x:2:2:/home/bob:Maildir\n')
  const accounts = new PasswordFile(`${path}/passwd`)
  await accounts.setPassword('ann', 'secret', '1:1:/home/ann:Maildir')
  expect(accounts.tailOf('ann')).toBe('1:1:/home/ann:Maildir')
  expect([accounts.remove('ann'), accounts.remove('ann')]).toEqual([true, false])
  expect(readFileSync(`${path}/passwd`, 'utf8')).toBe('# accounts\nbob:x:2:2:/home/bob:Maildir\n')
})
