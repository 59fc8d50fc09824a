import { chmodSync, chownSync, linkSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import {
  checkMaildir,
  inspectMaildir,
  maildirsBelow,
  maildirsOfSettings,
} from '../../../../src/auth-relay/check/check-maildirs.ts'
import { commandTree } from '../../../../src/auth-relay/command-line.ts'
import type { Action } from '../../../../src/auth-relay/verb.ts'
import { UsageFault } from '../../../../src/base/errors.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { isRoot, makeMaildir, parseFile } from '../../../harness/pop3/maildir.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

let sites = 0
/** A separate directory for the maildrops of one test. */
function site(): string {
  sites += 1
  const path = `${root.path}/${sites}`
  mkdirSync(path)
  return path
}
const maildirIn = (directory: string, ...files: readonly string[]) => makeMaildir(directory, files.map(parseFile))

const now = Math.floor(Date.now() / 1000)
const LONG = `${'n'.repeat(71)}`

/** Runs `auth-relay check` with these arguments. */
async function check(...words: readonly string[]): Promise<{ status: number; text: string }> {
  let text = ''
  let action: Action | undefined
  const print = (part: string) => {
    text += part
  }
  const surroundings = { environment: {}, print, isTerminal: false, columns: 80 }
  const tree = await commandTree(surroundings, chosen => {
    action = chosen
  })
  tree.parse(['check', ...words], { from: 'user' })
  if (action?.kind !== 'command') throw new Error('check is a command')
  return { status: await action.run(), text }
}

describe('a maildrop', () => {
  test('whose files are all served as by qmail-pop3d gives no finding', () => {
    const maildir = maildirIn(site(), 'new/1000.M1P2.host "x"', `cur/${'n'.repeat(70)}:2,S "x"`, 'new/.hidden "x"')
    const report = inspectMaildir(maildir, now)
    expect(report).toMatchObject({ files: 2, odd_names: { count: 0 }, twins: { count: 0 }, unreadable: { count: 0 } })
    expect(checkMaildir(report, 'none')).toEqual([])
  })

  test('with files that pop3d treats differently has a count and an example of each kind', () => {
    const maildir = maildirIn(
      site(),
      `cur/${LONG}:2,S "x"`,
      'new/a\\x20b "x"',
      'new/\\xc3\\xa4 "x"',
      'new/twin "x"',
      'cur/twin:2,S "y"',
      'new/late mtime=future "x"',
    )
    symlinkSync('/etc/passwd', `${maildir}/cur/link`)
    chmodSync(`${maildir}/new/late`, 0o000)
    const report = inspectMaildir(maildir, now)
    expect(report).toMatchObject({
      files: 7,
      odd_names: { count: 3 },
      unreadable: { count: 1, example: 'new/late' },
      future: { count: 1, example: 'new/late' },
      symbolic_links: { count: 1, example: 'cur/link' },
      twins: { count: 1, example: 'cur/twin:2,S' },
    })
    expect(checkMaildir(report, 'none').map(({ text }) => text.replace(/[,:].*/, ''))).toEqual([
      '3 messages would be downloaded again after a change from qmail-pop3d',
      '1 message with the name of another one',
      '1 message that the owner cannot read',
      '1 message with a time in the future',
      '1 symbolic link',
    ])
    // With compat = "qmail" the unique-ids follow qmail's rules.
    expect(checkMaildir(report, 'qmail')).toHaveLength(4)
    expect(
      checkMaildir(report, 'qmail')
        .map(({ text }) => text)
        .join(),
    ).not.toContain('downloaded again')
  })

  test('with two names of one file has one message', () => {
    const maildir = maildirIn(site(), 'new/A "x"')
    linkSync(`${maildir}/new/A`, `${maildir}/cur/A:2,`)
    expect(inspectMaildir(maildir, now).twins.count).toBe(0)
  })

  test.runIf(isRoot)('has the rights for files of other accounts checked by group and mode', () => {
    const maildir = maildirIn(site(), 'new/other "x"', 'new/group "x"', 'new/open "x"')
    const { gid } = statSync(maildir)
    for (const [name, group, mode] of [
      ['other', 0, 0o640],
      ['group', gid, 0o640],
      ['open', 0, 0o604],
    ] as const) {
      chownSync(`${maildir}/new/${name}`, 0, group)
      chmodSync(`${maildir}/new/${name}`, mode)
    }
    expect(inspectMaildir(maildir, now).unreadable).toEqual({ count: 1, example: 'new/other' })
  })

  test('with more files than check examines gives a finding', () => {
    const maildir = maildirIn(site(), 'new/A "x"', 'new/B "x"', 'new/C "x"')
    const report = inspectMaildir(maildir, now, 2)
    expect(report).toMatchObject({ files: 2, error: 'more than 2 files: the others were not checked' })
    expect(checkMaildir(report, 'none')).toHaveLength(1)
  })
})

describe('maildrops are found', () => {
  test('at and below a path, without following links and without entering a maildrop', () => {
    const home = site()
    const [ann, bob] = ['ann', 'bob'].map(name => {
      mkdirSync(`${home}/${name}`)
      return maildirIn(`${home}/${name}`, 'new/A "x"')
    })
    if (ann === undefined) throw new Error('two maildrops')
    for (const folder of ['', '/new', '/cur']) mkdirSync(`${ann}/.Sent${folder}`)
    symlinkSync(`${home}/ann`, `${home}/link`)
    expect([...maildirsBelow([home])].sort()).toEqual([ann, bob].sort())
    expect([...maildirsBelow([ann])]).toEqual([ann])
    expect(() => [...maildirsBelow([`${ann}/new`])]).toThrow(UsageFault)
  })

  test('in the passwd file, and in the accounts of the host', () => {
    const home = site()
    const maildir = maildirIn(home, 'new/A "x"')
    const below = maildir.slice(home.length + 1)
    const lines = (home_and_maildir: string) =>
      writeFileSync(`${home}/passwd`, `# accounts\nann:x:1:1:${home_and_maildir}\nbob:x:1:1:/nonexistent:\n`)
    const settings = (text: string) => parseSettings(`[popup]\n${text}`, 'x.toml').settings
    const named = settings(`passwd_file = "${home}/passwd"\nmaildir = "${below}"`)
    for (const written of [`${home}:${below}`, `${home}:`, `${home}:~/${below}`, `/:${maildir}`]) {
      lines(written)
      expect(maildirsOfSettings(named)).toEqual([maildir])
    }
    writeFileSync(`${home}/accounts`, `root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:${home}:/bin/sh\n`)
    const system = settings(`checker = "system"\nmaildir = "${below}"`)
    expect(maildirsOfSettings(system, `${home}/accounts`)).toEqual([maildir])
    expect(() => maildirsOfSettings(settings('checker = "upstream"'))).toThrow('Name directories')
  })
})

describe('auth-relay check --maildirs', () => {
  test('prints findings with their remedy; status 0 without any, 1 with some', async () => {
    const home = site()
    const good = maildirIn(home, 'new/A "x"')
    const config = ['--config', `${home}/none.toml`]
    expect(await check('--maildirs', good, ...config)).toEqual({
      status: 0,
      text: '1 maildrop, 0 with findings.\n',
    })
    expect(await check('--maildirs', good, '--quiet', ...config)).toEqual({ status: 0, text: '' })
    const odd = maildirIn(home, `new/${LONG} "x"`)
    const { status, text } = await check('--maildirs', home, ...config)
    expect(status).toBe(1)
    expect(text).toMatch(
      /^advice {2}\S+: 1 message would be downloaded again .*, e\.g\. new\/n+\n {8}do: set popup\.compat = "qmail".*\n2 maildrops, 1 with findings\.\n$/,
    )
    expect(text).toContain(`${odd}: `)
    writeFileSync(`${home}/qmail.toml`, '[popup]\ncompat = "qmail"\n')
    expect((await check('--maildirs', home, '--config', `${home}/qmail.toml`)).status).toBe(0)
  })

  test('prints an object for each maildrop with --json', async () => {
    const home = site()
    maildirIn(home, 'new/A "x"')
    maildirIn(home, `new/${LONG} "x"`)
    const { status, text } = await check('--json', '--maildirs', home)
    expect(status).toBe(1)
    const reports = text
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line))
    expect(reports).toHaveLength(2)
    expect(reports).toContainEqual(expect.objectContaining({ files: 1, odd_names: { count: 0 }, fine: true }))
    expect(reports).toContainEqual(
      expect.objectContaining({ odd_names: { count: 1, example: `new/${LONG}` }, fine: false }),
    )
  })

  test('without a path takes the maildrops of the settings', async () => {
    const home = site()
    const maildir = maildirIn(home, `new/${LONG} "x"`)
    writeFileSync(`${home}/passwd`, `ann:x:1:1:${home}:${maildir}\n`)
    writeFileSync(`${home}/auth-relay.toml`, `[popup]\npasswd_file = "${home}/passwd"\n`)
    const { status, text } = await check('--maildirs', '--config', `${home}/auth-relay.toml`)
    expect(status).toBe(1)
    expect(text).toContain(maildir)
  })
})
