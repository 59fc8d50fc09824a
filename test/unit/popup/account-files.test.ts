import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { maildirPath } from '../../../src/popup/checkers/checker.ts'
import { parseApopSecrets, parsePasswd } from '../../../src/popup/checkers/passwd-file.ts'
import { isValidOn, shadowEntryOf } from '../../../src/popup/checkers/system.ts'
import { decodeLogin } from '../../../src/wire/login-event.ts'

describe('parsePasswd', () => {
  test('accounts, comments, a missing maildir, and the first line of a login', () => {
    const { entries, faults } = parsePasswd(
      [
        '# mail accounts',
        '',
        'ann@example.org:$6$x$y:1001:1001:/home/ann:Mail/box',
        'bob:{PLAIN}b:1002:1003:/home/bob:',
        'carl:h:1004:1004:/home/carl',
        '  dora:h:1005:1005::/var/mail/dora\r',
        'bob:other:1002:1003:/home/bob:',
      ].join('\n'),
      'Maildir',
    )
    expect([...entries.values()]).toEqual([
      { login: 'ann@example.org', hash: '$6$x$y', uid: 1001, gid: 1001, maildir: '/home/ann/Mail/box' },
      { login: 'bob', hash: '{PLAIN}b', uid: 1002, gid: 1003, maildir: '/home/bob/Maildir' },
      { login: 'carl', hash: 'h', uid: 1004, gid: 1004, maildir: '/home/carl/Maildir' },
      { login: 'dora', hash: 'h', uid: 1005, gid: 1005, maildir: '/var/mail/dora' },
    ])
    expect(faults).toEqual([{ line: 7, reason: 'a second line for the same login' }])
  })

  test.each([
    ['ann', 'uid and gid must be numbers'],
    [':h:1:1:/home:', 'no login'],
    ['ann:h:0:1:/home:', 'uid 0 never gets a session: give the mail to another user'],
    ['ann:h:-1:1:/home:', 'uid and gid must be numbers'],
    ['ann:h:4294967295:1:/home:', 'uid and gid must be numbers'],
    ['ann:h:1:1:home:Maildir', 'neither home nor maildir is an absolute path'],
    ['ann:h:1:1:/home:Maildir:more', 'more than six fields'],
  ])('%j is a fault, and its message omits the hash', (line, reason) => {
    const { entries, faults } = parsePasswd(line, 'Maildir')
    expect(entries.size).toBe(0)
    expect(faults).toEqual([{ line: 1, reason }])
  })

  const any = fc.string({ unit: 'binary', maxLength: 8 })
  const id = fc.oneof(fc.constantFrom('0', '00', '+0', '1', '65534', '-1', '4294967295', '0x0', ''), any)
  const place = fc.oneof(fc.constantFrom('/home', 'Mail', '/home/../x', '', '~'), any)
  const login = fc.oneof(fc.constantFrom('ann', 'bob', ''), any)
  const line = fc
    .tuple(login, any, id, id, place, fc.option(place, { nil: undefined }))
    .map(fields => fields.filter(field => field !== undefined).join(':'))
  const lines = fc.array(line, { maxLength: 20 }).map(all => all.join('\n'))
  property.prop([fc.oneof(lines, fc.string({ unit: 'binary' }))])('never throws, and never returns uid 0', text => {
    const accounts = [...parsePasswd(text, 'Maildir').entries.values()]
    expect(accounts.filter(({ uid, maildir }) => !(uid > 0 && maildir.startsWith('/')))).toEqual([])
  })

  test('some lines of that property are accounts', () => {
    const found = fc.sample(lines, 2000).flatMap(text => [...parsePasswd(text, 'Maildir').entries.values()])
    expect(found.length).toBeGreaterThan(10)
  })
})

test('parseApopSecrets: the secret is the rest of the line, with blanks and colons', () => {
  const secrets = parseApopSecrets('# secrets\nann:tan:staaf \r\nbob:\nno colon\nann:second\n')
  expect([...secrets]).toEqual([['ann', 'tan:staaf ']])
})

test('parseApopSecrets: an indented comment is not a login', () => {
  expect([...parseApopSecrets('  # note: x\n\t#ann:y\nbob: #z\n')]).toEqual([['bob', ' #z']])
})

test.each([
  ['', '/home/ann', 'Maildir', '/home/ann/Maildir'],
  ['Mail', '/home/ann', 'Maildir', '/home/ann/Mail'],
  ['/var/mail/ann', '', 'Maildir', '/var/mail/ann'],
  ['maildir:~/Maildir:INDEX=/x', '/home/ann', 'Maildir', '/home/ann/Maildir'],
  ['maildir:/srv/ann', '', 'Maildir', '/srv/ann'],
  ['~other/Mail', '/home/ann', 'Maildir', '/home/ann/~other/Mail'],
])('maildirPath(%j, %j)', (named, home, fallback, path) => {
  expect(maildirPath(named, home, fallback)).toBe(path)
})
test.each([
  ['', ''],
  ['Maildir', 'home'],
  ['Mail\0dir', '/home'],
])('maildirPath(%j, %j) is not a path', (named, home) => {
  expect(maildirPath(named, home, 'Maildir')).toBeUndefined()
})

describe('shadow', () => {
  const TEXT = 'root:!:19000:0:99999:7:::\nann:$y$x:19000:0:90:7:14:20000:\nannette:other:19000::::::\n'
  test('the account’s own line, and its expiry', () => {
    const ann = shadowEntryOf(TEXT, 'ann')
    expect(ann).toEqual({ hash: '$y$x', passwordEnds: 19_104, accountEnds: 20_000 })
    expect(shadowEntryOf(TEXT, 'an')).toBeUndefined()
    expect(shadowEntryOf(TEXT, 'ann:$y$x')).toBeUndefined()
    expect(shadowEntryOf(TEXT, '')).toBeUndefined()
    if (ann === undefined) throw new Error('ann has a line')
    expect(isValidOn(ann, 19_104)).toBe(true)
    expect(isValidOn(ann, 19_105)).toBe(false)
    const entry = { hash: 'x', passwordEnds: undefined, accountEnds: 20_000 }
    expect([isValidOn(entry, 19_999), isValidOn(entry, 20_000)]).toEqual([true, false])
  })
})

property.prop([fc.uint8Array()])('decodeLogin decodes different octets to different names', bytes => {
  const octets = Buffer.from(bytes).toString('latin1')
  const text = decodeLogin(octets)
  const isUtf8 = Buffer.from(bytes).equals(Buffer.from(Buffer.from(bytes).toString('utf8')))
  expect(text).toBe(isUtf8 ? Buffer.from(bytes).toString('utf8') : octets)
})
