import { once } from 'node:events'
import { chmodSync, closeSync, mkdtempSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { waitedFor } from '../../../src/libc/child-process.ts'
import { openSocketPair } from '../../../src/libc/sockets.ts'
import {
  CHECKPASSWORD_LIMIT,
  checkpasswordMessage,
  refusalOf,
  startChain,
  verifyLogin,
} from '../../../src/ucspi/checkpassword.ts'
import { eventually } from '../../harness/eventually.ts'
import { withFreeDescriptors } from '../../harness/hosts/scarce-descriptors.ts'

const directory = realpathSync(mkdtempSync(join(tmpdir(), 'checkpassword-')))
const credentials = { login: 'ann', password: 'secret', timestamp: '<7f3a.12.1764000000@host>' }
const environment = { PATH: '/usr/bin:/bin', TCPREMOTEIP: '192.0.2.7' }
let scripts = 0

/** A checkpassword program made of a shell script. */
function checker(script: string): string[] {
  const path = join(directory, `checker${scripts++}`)
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return [path]
}
const verify = (script: string, more: { args?: string[]; limitMs?: number; killAfterMs?: number } = {}) =>
  verifyLogin({ checker: checker(script), credentials, environment, args: ['Maildir'], ...more })

const ACCEPT = 'exec 3<&-; exec "$@"'

test('the message is exact, octet for octet, and never longer than 512', () => {
  expect(Buffer.from(checkpasswordMessage({ login: 'a', password: 'b c', timestamp: '' }) ?? []).toString()).toBe(
    'a\0b c\0\0',
  )
  const field = fc.string({
    unit: fc.integer({ min: 1, max: 255 }).map(code => String.fromCharCode(code)),
    maxLength: 300,
  })
  fc.assert(
    fc.property(field, field, field, (login, password, timestamp) => {
      const message = checkpasswordMessage({ login, password, timestamp })
      const size = login.length + password.length + timestamp.length + 3
      if (size > CHECKPASSWORD_LIMIT) expect(message).toBeUndefined()
      else
        expect(
          Buffer.from(message ?? [])
            .toString('latin1')
            .split('\0'),
        ).toEqual([login, password, timestamp, ''])
    }),
  )
  expect(checkpasswordMessage({ login: 'a\0b', password: '', timestamp: '' })).toBeUndefined()
})

test('descriptor 3 carries the message and then ends; the environment contains nothing of it', async () => {
  const seen = join(directory, 'seen')
  await verify(`cat <&3 >${seen}; env >${seen}.env; exit 1`)
  expect(readFileSync(seen, 'latin1')).toBe(`ann\0secret\0${credentials.timestamp}\0`)
  expect(readFileSync(`${seen}.env`, 'latin1')).not.toContain('secret')
})

describe('an accepted password', () => {
  test('returns the changes that the checker made to its process', async () => {
    const home = join(directory, 'home')
    const answer = await verify(`mkdir -p ${home}; cd ${home}; USER=ann HOME=${home}; export USER HOME; ${ACCEPT}`)
    expect(answer).toMatchObject({
      kind: 'ok',
      uid: process.getuid?.(),
      gid: process.getgid?.(),
      directory: home,
      args: ['Maildir'],
      environment: { USER: 'ann', HOME: home, TCPREMOTEIP: '192.0.2.7' },
    })
  })

  test('with the arguments as checkvpw rewrites them', async () => {
    // The first argument that contains `maildir`, in any case, becomes the mail directory.
    const answer = await verify(
      `exec perl -e 'for (@ARGV) { if (/maildir/i) { $_ = "./users/ann"; last } } exec @ARGV' "$@"`,
      { args: ['-x', 'Maildir', 'last'] },
    )
    expect(answer).toMatchObject({ kind: 'ok', args: ['-x', './users/ann', 'last'] })
  })

  test.runIf(process.getuid?.() === 0)('with another uid and gid, and without the groups of the parent', async () => {
    const answer = await verify(`exec setpriv --reuid 65534 --regid 65533 --groups 65532,65531 "$@"`)
    expect(answer).toMatchObject({ kind: 'ok', uid: 65534, gid: 65533, groups: [65531, 65532] })
  })

  test('of a checker that prints, and of one that stays as the parent', async () => {
    expect(await verify(`echo "Login OK"; "$@"`)).toMatchObject({ kind: 'ok', args: ['Maildir'] })
  })

  test('a witness that became another program does not count', async () => {
    const answer = await verify(`exec perl -e 'syswrite STDOUT, "\\0checked $$\\n"; sleep 20'`, { limitMs: 5_000 })
    expect(answer).toMatchObject({ kind: 'temporary', detail: expect.stringContaining('another program') })
  })

  test('a witness that names a foreign process does not count', async () => {
    const answer = await verify(`printf '\\0checked 1\\n'; sleep 20`, { limitMs: 300 })
    expect(answer).toMatchObject({ kind: 'temporary', detail: expect.stringContaining('no process of the checker') })
  })
})

describe('a refused password', () => {
  test.each([
    ['exit 0', 'temporary'],
    ['exit 1', 'badauth'],
    ['exit 2', 'temporary'],
    ['exit 3', 'temporary'],
    ['exit 111', 'temporary'],
    ['kill -9 $$', 'crash'],
    ['cat <&3 >/dev/null; exit 1', 'badauth'],
  ])('%s: %s', async (script, kind) => {
    expect(await verify(script)).toMatchObject({ kind })
  })

  test('vchkpw has other exit codes for a wrong password', () => {
    expect(refusalOf(['/home/vpopmail/bin/vchkpw'], { code: 3 }).kind).toBe('badauth')
    expect(refusalOf(['/home/vpopmail/bin/vchkpw'], { code: 0 }).kind).toBe('temporary')
    expect(refusalOf(['/bin/checkpassword'], { code: 3 }).kind).toBe('temporary')
  })

  test('a checker that does not exist is a temporary failure with its reason', async () => {
    const answer = await verifyLogin({ checker: ['/nonexistent'], credentials, environment, args: [] })
    expect(answer).toMatchObject({ kind: 'temporary', detail: expect.stringContaining('ENOENT') })
  })

  test('513 octets are refused without running anything', async () => {
    const long = { ...credentials, password: 'x'.repeat(512) }
    const answer = await verifyLogin({ checker: ['/nonexistent'], credentials: long, environment, args: [] })
    expect(answer.kind).toBe('badauth')
  })

  test('a checker that hangs gets SIGTERM, and SIGKILL if it ignores it, with its children', async () => {
    expect(await verify('sleep 30', { limitMs: 50 })).toMatchObject({
      kind: 'temporary',
      detail: expect.stringContaining('in time'),
    })
    const stubborn = await verify(`trap '' TERM; while :; do sleep 30; done`, { limitMs: 50, killAfterMs: 50 })
    expect(stubborn).toMatchObject({ kind: 'temporary', detail: expect.stringContaining('in time') })
  })

  test('a child that keeps the pipe open does not delay the answer', async () => {
    expect(await verify('sleep 2 & exit 1')).toMatchObject({ kind: 'badauth' })
  })
})

describe('chain', () => {
  const chain = (script: string, program: string[], limitMs = 5000) => {
    const [ours, theirs] = openSocketPair()
    const started = startChain({
      checker: checker(script),
      program,
      credentials,
      environment,
      session: theirs,
      limitMs,
      killAfterMs: 50,
    })
    closeSync(theirs)
    if ('kind' in started) throw new Error(started.detail)
    return { started, session: new Socket({ fd: ours, readable: true, writable: true }) }
  }

  test('any POP3 server continues the session', async () => {
    const { started, session } = chain(ACCEPT, [
      '/bin/sh',
      '-c',
      'echo "+OK $0"; read -r word; echo "+OK bye $word"',
      'welcome',
    ])
    const [greeting] = await once(session, 'data')
    expect(String(greeting)).toBe('+OK welcome\n')
    started.accepted()
    session.write('QUIT\n')
    const [bye] = await once(session, 'data')
    expect(String(bye)).toBe('+OK bye QUIT\n')
    expect(await started.ended).toEqual({ ending: { code: 0 }, timedOut: false })
    session.destroy()
  })

  test('the time limit is for the check, not for an accepted session', async () => {
    const slow = chain('sleep 30', ['/bin/true'], 50)
    expect(await slow.started.ended).toEqual({ ending: { signal: 'SIGTERM' }, timedOut: true })
    slow.session.destroy()
    // Its limit would end it after 200 ms. A second chain that is not accepted shows when such a
    // limit has passed.
    const long = chain(ACCEPT, ['/bin/sh', '-c', 'echo +OK; read -r word; echo "still $word"'], 200)
    await once(long.session, 'data')
    long.started.accepted()
    const later = chain('sleep 30', ['/bin/true'], 400)
    expect(await later.started.ended).toMatchObject({ timedOut: true })
    later.session.destroy()
    long.session.write('here\n')
    const [answer] = await once(long.session, 'data')
    expect(String(answer)).toBe('still here\n')
    long.session.end()
    expect(await long.started.ended).toMatchObject({ timedOut: false })
  })
})

test('many checks at once leave no descriptor and no child', async () => {
  await eventually('the children of earlier tests are reaped', () => waitedFor() === 0)
  const before = readdirSync('/proc/self/fd').length
  const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => verify(i % 2 === 0 ? ACCEPT : 'exit 1')))
  expect(answers.map(({ kind: verdict }) => verdict)).toEqual(answers.map((_, i) => (i % 2 === 0 ? 'ok' : 'badauth')))
  await eventually('all children are reaped', () => waitedFor() === 0)
  // The descriptors of an earlier test may still have been open at the count.
  await eventually('the descriptors are closed', () => readdirSync('/proc/self/fd').length <= before)
})

test('a process without free descriptors answers a temporary failure and leaves no descriptor', async () => {
  const request = { checker: checker(ACCEPT), credentials, environment, args: [] }
  const before = readdirSync('/proc/self/fd').length
  for (const free of [0, 2, 4]) {
    const answer = withFreeDescriptors(free, () => verifyLogin(request))
    expect(await answer).toMatchObject({ kind: 'temporary', detail: expect.stringContaining('EMFILE') })
  }
  expect(readdirSync('/proc/self/fd')).toHaveLength(before)
})
