import { spawn } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { describe, expect, onTestFinished, test } from 'vitest'
import { shownCertificates } from '../../../../src/auth-relay/certificates.ts'
import { runningPrograms } from '../../../../src/auth-relay/check/processes.ts'
import { checkBeforeStart } from '../../../../src/auth-relay/stack/plan.ts'
import type { SiteStatus } from '../../../../src/auth-relay/verbs/status.ts'
import { exitStatusOf, formatStatus, siteStatus, sourcesOf } from '../../../../src/auth-relay/verbs/status.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { eventually } from '../../../harness/eventually.ts'
import { describeWith, ROOT } from '../../../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const same = (text: string): string => text
const style = { good: same, bad: same, warning: same, faint: same, strong: same }
const now = new Date(2026, 10, 22, 18, 24, 58)

const healthy: SiteStatus = {
  taken: now,
  programs: [{ name: 'authd', pid: 4711, since: now, startedBy: 'auth-relay-authd.service' }],
  database: {
    state: 'up',
    host: 'db1',
    role: 'authstatus',
    schema: 7,
    counts: {
      totals: { now, grants: 12, allowances: 1, blocks: 2, schema: 7 },
      lastHour: { granted: 40, refused: 3, relayed: 9, closed: 5 },
      lastByDaemon: [
        { daemon: 'dovecot', host: null, at: now },
        { daemon: 'policy', host: 'smtp1', at: now },
      ],
    },
  },
  sources: [{ source: '/var/log/mail.log', last: now, line: `popa3d: ${'x'.repeat(200)}` }, { source: 'journal' }],
  certificates: [{ address: '[::]:995', found: { names: 'mx.example.org', isSelfSigned: false, until: now } }],
  problems: [],
}

describe('the screen of status', () => {
  test('has each part in columns, and states that nothing is wrong', () => {
    expect(formatStatus(healthy, style)).toBe(`Programs
  authd                    since 2026-11-22 18:24:58, pid 4711, auth-relay-authd.service
Database
  server                   db1, role authstatus, schema 7
  grants                   12, allowances 1, blocks 2
  logins, last hour        40 granted, 3 refused
  clients, last hour       9 relayed, 5 not relayed
  last of dovecot          2026-11-22 18:24:58
  last of policy on smtp1  2026-11-22 18:24:58
Log sources
  /var/log/mail.log        last line 2026-11-22 18:24:58: popa3d: ${'x'.repeat(81)}…
  journal                  no line yet
Certificates
  [::]:995                 mx.example.org, until 2026-11-22 18:24:58

Nothing is wrong.
`)
    expect(exitStatusOf(healthy)).toBe(0)
  })

  test('lists the faults at its end; text from outside cannot control the terminal', () => {
    const found = { ...healthy, programs: [], problems: ['authd does not run', 'x\u001b[2J'] }
    const text = formatStatus(found, style)
    expect(text).toContain('Programs\n  none ')
    expect(text).toMatch(/\nwrong {2}authd does not run\nwrong {2}x.*\n$/)
    expect(text).not.toContain('\u001b')
    expect(exitStatusOf(found)).toBe(1)
  })

  test('an unavailable database decides the status; a host without the password of the status role reports it', () => {
    const unavailable: SiteStatus = { ...healthy, database: { state: 'down', reason: 'refused' }, problems: ['x'] }
    expect(formatStatus(unavailable, style)).toMatch(/^ {2}unavailable +refused$/m)
    expect(exitStatusOf(unavailable)).toBe(111)
    const database = { state: 'up', host: 'db1', role: 'authwrap', schema: 7 } as const
    expect(formatStatus({ ...healthy, database }, style)).toMatch(/^ {2}grants +unknown: .*status_dbuser$/m)
    const refused = { ...database, uncounted: 'no database: no pg_hba.conf entry' }
    expect(formatStatus({ ...healthy, database: refused }, style)).toMatch(
      /^ {2}grants +unknown: .*pg_hba.conf entry$/m,
    )
  })
})

describe('the certificates of this host', () => {
  const settingsOf = (toml: string) => parseSettings(toml, 'test', {}).settings

  test('if sslwrap is not in use and popup serves no TLS, there is none, also with a server on port 995', async () => {
    expect(await shownCertificates(settingsOf('[popup]\nlisten = []\n'))).toEqual([])
    expect(await shownCertificates(settingsOf(''), { sslwrap: false })).toEqual([])
  })

  test('an address that refuses connections is shown with the reason of each attempt', async () => {
    const settings = settingsOf('[[sslwrap.listener]]\nlisten = "*:1"\nbackend = "127.0.0.1:110"\n')
    const [shown, ...others] = await shownCertificates(settings)
    expect(others).toEqual([])
    expect(shown?.found).toEqual({ fault: expect.stringMatching(/ECONNREFUSED 127\.0\.0\.1:1$/) })
  })
})

describe.each(['listen', 'proxy_listen', 'tls_listen'])('with popup.%s alone', name => {
  const popup = { listen: '[]', [name]: '["127.0.0.1:0"]', passwd_file: '"/nonexistent/passwd"' }
  const lines = Object.entries(popup).map(([key, value]) => `${key} = ${value}`)
  const text = ['configured = true', 'state_dir = "/nonexistent"', '[popup]', 'checker = "passwd-file"', ...lines]
  const { settings } = parseSettings(`${text.join('\n')}\n`, 'auth-relay.toml', {})

  test('the login socket is a source', () => {
    expect(sourcesOf(settings)).toEqual([{ source: 'login socket' }])
  })

  test('a missing password file is a fault before the start', async () => {
    await expect(checkBeforeStart(settings)).rejects.toThrow('popup.passwd_file: /nonexistent/passwd does not exist')
  })
})

test('the programs that run with a settings file are its daemons, and no command', async () => {
  const { path, remove } = temporaryDirectory()
  onTestFinished(remove)
  const config = `${path}/auth-relay.toml`
  const waits = 'process.stdout.write("."); setInterval(() => {}, 1000)'
  for (const name of ['authd', 'auth-relay', 'popup', 'wrap']) writeFileSync(`${path}/${name}.cjs`, waits)
  const start = async (name: string, ...words: string[]): Promise<number | undefined> => {
    const child = spawn(process.execPath, [`${path}/${name}.cjs`, ...words], { cwd: path })
    onTestFinished(() => void child.kill('SIGKILL'))
    let output = ''
    child.stdout.on('data', chunk => {
      output += String(chunk)
    })
    await eventually(`${name} runs`, () => output !== '')
    return child.pid
  }
  const authd = await start('authd', '--config', config)
  await start('authd', '--config', `${path}/other.toml`)
  const popup = await start('popup', `--config=${config}`)
  const wrap = await start('wrap', '--config', 'auth-relay.toml')
  const alerts = await start('auth-relay', 'alerts', 'run', '--config', config)
  await start('auth-relay', 'alerts', '--config', config)
  await start('auth-relay', 'alerts', 'test', '--config', config)
  const page = await start('auth-relay', 'status-page', '--config', config)
  await start('auth-relay', 'watch', '--config', config)
  const found = runningPrograms(config, `${path}/auth-relay.cjs`)
  expect(Object.fromEntries(found.map(({ name, pid }) => [name, pid]))).toEqual({
    ...{ authd, popup, wrap, alerts },
    'status-page': page,
  })
  expect(found).toHaveLength(5)
})

test('a followed file of which authd has read no line shows its change, and no last line', () => {
  const { path, remove } = temporaryDirectory()
  onTestFinished(remove)
  writeFileSync(`${path}/mail.log`, 'a line\n')
  const toml = `state_dir = "${path}"\n[authd]\nfollow_files = ["${path}/mail.log"]\n[popup]\nlisten = []\n`
  const sources = sourcesOf(parseSettings(toml, 'test', {}).settings)
  expect(sources).toEqual([{ source: `${path}/mail.log`, changed: expect.any(Date) }])
  expect(formatStatus({ ...healthy, sources }, style)).toMatch(/mail\.log +no line yet; the file changed \d{4}-/)
})

describeWith([ROOT], 'the account of authd', () => {
  test('may not read a followed file: a problem with its remedy', async () => {
    const { path, remove } = temporaryDirectory()
    onTestFinished(remove)
    writeFileSync(`${path}/mail.log`, '', { mode: 0o600 })
    chmodSync(path, 0o755)
    const lines = [`state_dir = "${path}"`, '[database]', 'dbhost = "127.0.0.1"', 'dbport = 1']
    const authd = ['[authd]', 'user = "61210"', `socket = "${path}/a.sock"`, `follow_files = ["${path}/mail.log"]`]
    const { settings } = parseSettings([...lines, ...authd, '[popup]', 'listen = []', ''].join('\n'), 'test', {})
    const { problems } = await siteStatus(settings, `${path}/x.toml`, `${path}/auth-relay.js`, now)
    expect(problems).toContainEqual(
      expect.stringMatching(
        /^authd\.follow_files: 61210 .* cannot read .*mail\.log: nothing is granted from it: .*setfacl/,
      ),
    )
  })
})

test('a followed file that cannot be inspected is a fault of the source, and the rest is shown', () => {
  const { settings } = parseSettings(`[authd]\nfollow_files = ["/${'x'.repeat(300)}"]\njournal = true\n`, 'test', {})
  const [followed, journal] = sourcesOf(settings)
  expect([followed?.fault, journal?.source]).toEqual([expect.stringContaining('ENAMETOOLONG'), 'journal'])
})
