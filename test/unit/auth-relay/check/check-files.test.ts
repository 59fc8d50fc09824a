import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { checkFiles } from '../../../../src/auth-relay/check/check-files.ts'
import { checkSyslog } from '../../../../src/auth-relay/check/check-syslog.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { makeSelfSigned } from '../../../../src/tunnel/self-signed.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)

const config = `${path}/auth-relay.toml`
const qmail = `${path}/qmail`
const etc = `${path}/etc`

beforeEach(() => {
  for (const name of [qmail, etc]) rmSync(name, { recursive: true, force: true })
  for (const name of [`${qmail}/bin`, `${qmail}/control`, `${etc}/rsyslog.d`]) mkdirSync(name, { recursive: true })
  writeFileSync(config, '', { mode: 0o600 })
  chmodSync(config, 0o600)
})

/** Writes a file with a mode, independent of the umask. */
function file(name: string, text: string, mode: number): string {
  writeFileSync(`${path}/${name}`, text)
  chmodSync(`${path}/${name}`, mode)
  return `${path}/${name}`
}

const settingsOf = (toml: string) => parseSettings(toml, config).settings
const findingsOf = (toml: string, now = new Date(), environment = {}) =>
  checkFiles(parseSettings(toml, config, environment), config, now)

/**
 * The findings about one subject as `verdict: text`; each finding other than `fine` has a remedy.
 */
function findingsAbout(about: string, toml: string, now?: Date): readonly string[] {
  const found = findingsOf(toml, now).filter(finding => finding.about === about)
  for (const { verdict, remedy } of found) expect(verdict === 'fine' || (remedy ?? '') !== '').toBe(true)
  return found.map(({ verdict, text }) => `${verdict}: ${text.replaceAll(path, '')}`)
}

describe('qmail behind the gate', () => {
  const toml = `[wrap]\nlisten = ["*:25"]\nqmaildir = "${qmail}"`

  test('without control/rcpthosts qmail relays for every client', () => {
    expect(findingsAbout(`${qmail}/control/rcpthosts`, toml)).toEqual([
      'unsafe: missing: qmail relays for every client, which is an open relay',
    ])
    writeFileSync(`${qmail}/control/rcpthosts`, 'example.org\n')
    expect(findingsAbout(`${qmail}/control/rcpthosts`, toml)).toEqual([
      'fine: exists: without RELAYCLIENT only its domains are accepted',
    ])
  })

  test('the real smtpd must be there', () => {
    expect(findingsAbout('wrap.qmail_smtpd_noauth', toml)).toEqual([
      'unsafe: /qmail/bin/qmail-smtpd.noauth cannot be started',
    ])
    writeFileSync(`${qmail}/bin/qmail-smtpd.noauth`, '', { mode: 0o755 })
    expect(findingsAbout('wrap.qmail_smtpd_noauth', toml)).toEqual([])
  })
})

describe('accounts that may read and write files', () => {
  test('the settings file', () => {
    chmodSync(config, 0o664)
    expect(findingsAbout(config, '')).toEqual(['unsafe: mode 0664: others may write to it'])
    chmodSync(config, 0o644)
    expect(findingsAbout(config, '')).toEqual(['fine: mode 0644'])
    expect(findingsAbout(config, '[database]\nstatus_dbpass = "x9"')).toEqual([
      'unsafe: mode 0644: every account can read the passwords in it',
    ])
  })

  test('a password in the environment is not in the settings file, which every account may then read', () => {
    chmodSync(config, 0o644)
    const found = findingsOf('', new Date(), { STATUS_DBPASS: 'x9' }).filter(({ about }) => about === config)
    expect(found).toEqual([{ verdict: 'fine', about: config, text: 'mode 0644' }])
  })

  test('the remedy for a secret that others can read keeps the secret; only a missing secret is made', () => {
    const remedyOf = (text: string, mode: number) => {
      const password = file('dbpass', text, mode)
      const toml = `[popup]\nlisten = []\n[database]\ndbpass_file = "${password}"`
      return findingsOf(toml)
        .find(({ about }) => about === 'database.dbpass_file')
        ?.remedy?.replaceAll(path, '')
    }
    expect(remedyOf('sesame\n', 0o644)).toBe('chmod o-rwx /dbpass')
    expect(remedyOf('\n', 0o600)).toBe(
      '(umask 077; head -c 24 /dev/urandom | base64 > /dbpass) && auth-relay migrate --user postgres',
    )
  })

  test('a missing file of APOP secrets: the remedy writes that file', () => {
    const found = findingsOf(`[popup]\nchecker = "system"\napop_file = "${path}/none"`)
    expect(found.find(({ about }) => about === 'popup.apop_file')).toMatchObject({
      verdict: 'unsafe',
      remedy: 'write a line LOGIN:SECRET for each login there, and chmod 600 the file',
    })
  })

  test('a path through a link to itself is a finding, and the other checks run', () => {
    symlinkSync('loop', `${path}/loop`)
    const found = findingsOf(`[popup]\nlisten = []\n[authd]\nsyslog_fifo = "${path}/loop/fifo"`)
    expect(found).toContainEqual({
      verdict: 'unsafe',
      about: 'auth-relay check',
      text: expect.stringMatching(/^not checked in full: ELOOP: .*fifo/),
      remedy: 'correct the path in the settings',
    })
    expect(found).toContainEqual({ verdict: 'fine', about: config, text: 'mode 0600' })
  })

  test.each([
    ['off = ["no_such_rule"]', 'alerts.off', 'there is no rule no_such_rule'],
    ['close = ["no_such_rule"]', 'alerts.close', 'there is no rule no_such_rule'],
    ['close = ["device_silent"]', 'alerts.close', 'an alarm of device_silent names nothing that a block could close'],
    ['mail_from = "-f"', 'alerts.mail_from', '-f is not an address'],
    ['webhook_file = "/nonexistent"', 'alerts.webhook_file', /^cannot read the secret file \/nonexistent: ENOENT/],
  ])('%s, with which alerts would not start, is unsafe', (line, about, text) => {
    const found = findingsOf(`[popup]\nlisten = []\n[alerts]\nmail_to = ["root@example.org"]\n${line}`)
    expect(found.filter(finding => finding.about.startsWith('alerts.') && finding.about !== 'alerts.user')).toEqual([
      {
        verdict: 'unsafe',
        about,
        text: typeof text === 'string' ? text : expect.stringMatching(text),
        remedy: expect.any(String),
      },
    ])
  })

  test('secrets: open to others, the default secret, missing', () => {
    const secret = (text: string, mode: number) =>
      findingsAbout('popup.ssl_hack_pass', `[popup]\nssl_hack_pass = "${file('secret', text, mode)}"`)
    expect(secret('sesame\n', 0o600)).toEqual(['fine: /secret holds a secret and is closed to others'])
    expect(secret('sesame\n', 0o644)[0]).toContain('unsafe: secret file /secret is open to every user')
    expect(secret('password\n', 0o600)[0]).toContain('unsafe: secret file /secret holds the default secret')
    expect(findingsAbout('popup.ssl_hack_pass', `[popup]\nssl_hack_pass = "${path}/none"`)[0]).toContain(
      'unsafe: cannot read',
    )
  })

  test('the accounts of popup', () => {
    const passwd = (mode: number, text = '# none\n') =>
      findingsAbout('popup.passwd_file', `[popup]\npasswd_file = "${file('passwd', text, mode)}"`)
    expect(passwd(0o640)).toEqual(['fine: /passwd is closed to others'])
    expect(passwd(0o644)).toEqual(['unsafe: /passwd is open to every user of this host (0644)'])
    mkdirSync(`${path}/home/there/Maildir/new`, { recursive: true })
    const accounts = ['there', 'gone', 'lost'].map(name => `${name}:x:1:2:${path}/home/${name}:\n`).join('')
    expect(passwd(0o640, accounts)).toEqual([
      'fine: /passwd is closed to others',
      'advice: gone and 1 more: no maildrop at /home/gone/Maildir, so each session ends with -ERR after the login',
    ])
    const remedy = findingsOf(`[popup]\npasswd_file = "${path}/passwd"`).flatMap(found => found.remedy ?? [])
    const missing = `${path}/home/gone/Maildir`
    expect(remedy).toContain(`install -d -m 700 -o 1 -g 2 ${missing} ${missing}/new ${missing}/cur ${missing}/tmp`)
  })

  test('the checker', () => {
    const checker = (words: string) =>
      findingsAbout('popup.checkpassword', `[popup]\nchecker = "checkpassword"\ncheckpassword = ${words}`)
    expect(checker('[]')).toEqual(['unsafe: empty, and popup.checker is "checkpassword"'])
    expect(checker('["/nowhere/checkpassword"]')).toEqual(['unsafe: /nowhere/checkpassword cannot be started'])
    expect(checker('["/bin/true"]')).toEqual(['fine: /bin/true'])
  })
})

describe('certificates', () => {
  const pair = makeSelfSigned({ names: ['mx.example.org'], now: Date.now() })
  const cert = (): string => file('tls.crt', pair.cert, 0o644)
  const toml = (key: string): string => `[sslwrap]\ncert = "${cert()}"\nkey = "${key}"`
  const days = (number: number): Date => new Date(Date.now() + number * 86_400_000)

  test('self-signed, about to expire, expired, not valid yet', () => {
    const key = file('tls.key', pair.key, 0o600)
    expect(findingsAbout('sslwrap.cert', toml(key))).toEqual([
      'advice: /tls.crt is self-signed: clients show a warning',
    ])
    expect(findingsAbout('sslwrap.cert', toml(key), days(820))[0]).toMatch(/^advice: \/tls\.crt ends in \d+ d/)
    expect(findingsAbout('sslwrap.cert', toml(key), days(900))[0]).toMatch(/^unsafe: \/tls\.crt ended on 20/)
    expect(findingsAbout('sslwrap.cert', toml(key), days(-30))[0]).toMatch(/^unsafe: \/tls\.crt begins on 20/)
  })

  test('a key that others can read, and one that belongs to another certificate', () => {
    expect(findingsAbout('sslwrap.cert', toml(file('tls.key', pair.key, 0o644)))).toContain(
      'unsafe: /tls.key is open to others (0644)',
    )
    const other = makeSelfSigned({ names: ['other.example.org'], now: Date.now() })
    expect(findingsAbout('sslwrap.cert', toml(file('other.key', other.key, 0o600)))).toContain(
      'unsafe: /other.key is not the key of /tls.crt',
    )
    expect(findingsAbout('sslwrap.cert', toml(file('rubbish.key', 'rubbish', 0o600))).at(-1)).toContain(
      'unsafe: cannot use',
    )
  })

  test('no certificate yet: the finding names the next step', () => {
    expect(findingsAbout('sslwrap.cert', `[sslwrap]\ncert = "${path}/no.crt"\nkey = "${path}/no.key"`)[0]).toContain(
      'advice: /no.crt does not exist: sslwrap makes a self-signed one',
    )
  })

  test('a missing certificate that sslwrap does not make prevents the start of its program', () => {
    const own = toml(file('tls.key', pair.key, 0o600))
    const further = `${own}\n[[sslwrap.certificate]]\ncert = "${path}/no.crt"\nkey = "${path}/no.key"`
    expect(findingsAbout('sslwrap.certificate.cert', further)).toEqual([
      'unsafe: /no.crt does not exist: sslwrap does not start',
    ])
    const popup = `[popup]\ntls_listen = ["127.0.0.1:995"]\nstls_cert = "${path}/no.crt"\nstls_key = "${path}/no.key"`
    expect(findingsAbout('popup.stls_cert', popup)).toEqual(['unsafe: /no.crt does not exist: popup does not start'])
  })
})

describe('syslogd', () => {
  const of = (toml: string): readonly string[] =>
    checkSyslog(settingsOf(toml), etc).map(
      ({ verdict, about, text }) => `${verdict}: ${about}: ${text.replaceAll(path, '')}`,
    )
  const fifo = `${path}/etc/fifo`

  test('the FIFO: missing, not a FIFO, open to others, without a writer, and right', () => {
    const toml = `[authd]\nsyslog_fifo = "${fifo}"`
    expect(of(toml)).toEqual(['unsafe: authd.syslog_fifo: /etc/fifo does not exist'])
    writeFileSync(fifo, '')
    expect(of(toml)).toEqual(['unsafe: authd.syslog_fifo: /etc/fifo is not a FIFO'])
    rmSync(fifo)
    execFileSync('mkfifo', [fifo])
    chmodSync(fifo, 0o622)
    expect(of(toml)[0]).toContain('others may write to /etc/fifo (0622), and so grant any address')
    chmodSync(fifo, 0o600)
    expect(of(toml)).toEqual(['advice: authd.syslog_fifo: no syslogd of this host writes to /etc/fifo'])
    writeFileSync(`${etc}/rsyslog.d/a.conf`, `# mail.* |${fifo}\n`)
    expect(of(toml)[0]).toContain('advice')
    writeFileSync(`${etc}/rsyslog.d/a.conf`, `mail.* |${fifo}\n`)
    expect(of(toml)).toEqual(["fine: authd.syslog_fifo: /etc/fifo is there, and the system's syslogd writes to it"])
  })

  test('delivery by TCP', () => {
    const toml = '[authd]\nsyslog_listen = ["127.0.0.1:6514"]'
    expect(of(toml)).toEqual(['advice: authd.syslog_listen: no syslogd of this host sends to 127.0.0.1:6514'])
    writeFileSync(
      `${etc}/rsyslog.d/b.conf`,
      'mail.info action(\n  type="omfwd" target="127.0.0.1" port="6514" protocol="tcp")\n',
    )
    expect(of(toml)).toEqual(["fine: authd.syslog_listen: the system's syslogd sends to 127.0.0.1:6514"])
  })

  test.each([
    'input(type="imudp" port="514")',
    'input(type="imtcp" port="514")',
    '$UDPServerRun 514',
    '$InputTCPServerRun 514',
    'source s_net { udp(ip(0.0.0.0) port(514)); };',
  ])('%s is unsafe, because every host that can send a line could open the relay', line => {
    writeFileSync(`${etc}/rsyslog.conf`, `${line}\n`)
    const found = of('[authd]\nsyslog_listen = ["127.0.0.1:0"]')
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(`unsafe: syslogd: it accepts lines from the network (/etc/rsyslog.conf:1: ${line})`)
  })

  test.each([
    '#input(type="imudp" port="514")',
    'input(type="imudp" address="127.0.0.1" port="514")',
    'module(load="imudp")',
    'destination d_net { udp("192.0.2.1" port(514)); };',
  ])('%s gives no finding', line => {
    writeFileSync(`${etc}/rsyslog.conf`, `${line}\n`)
    expect(of('[authd]\nsyslog_listen = ["127.0.0.1:0"]')).toEqual([])
  })

  test('if authd reads no syslog, syslogd is not checked', () => {
    writeFileSync(`${etc}/rsyslog.conf`, 'input(type="imudp" port="514")\n')
    expect(of('')).toEqual([])
  })
})

test.runIf(process.getuid?.() === 0)('the account of alerts must be there if the settings name a recipient', () => {
  const toml = '[alerts]\nuser = "no-such-account"\n'
  expect(findingsAbout('alerts.user', toml)).toEqual([])
  expect(findingsAbout('alerts.user', `${toml}mail_to = ["postmaster@example.org"]`)).toEqual([
    'unsafe: the account no-such-account does not exist',
  ])
})

test.each([
  ['authd.socket_users', '[authd]\nsocket_users = ["no-such-account"]'],
  ['authd.usage_users', '[authd]\nusage_users = ["no-such-account"]'],
  ['authd.journal_users', '[authd]\njournal = true\njournal_users = ["no-such-account"]'],
  ['wrap.socket_group', '[wrap]\npolicy_listen = ["127.0.0.1:10040"]\nsocket_group = "no-such-group"'],
])('%s: a missing account or group, with which the program does not start, is unsafe', (name, toml) => {
  expect(findingsAbout(name, toml)).toEqual([
    expect.stringMatching(/^unsafe: the (account|group) no-such-\S* does not exist/),
  ])
})

test('accounts and groups of parts that are not in use are not checked, nor the accounts of the default', () => {
  const toml = '[authd]\njournal_users = ["no-such-account"]\n[wrap]\nlisten = []\nsocket_group = "no-such-group"'
  expect([...findingsAbout('authd.journal_users', toml), ...findingsAbout('wrap.socket_group', toml)]).toEqual([])
  expect(findingsAbout('authd.journal_users', '[authd]\njournal = true')).toEqual([])
})
