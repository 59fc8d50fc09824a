import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { afterAll, beforeAll, describe, expect, inject, onTestFailed, test } from 'vitest'
import { copyNodeModules } from '../harness/checkout.ts'
import { eventually } from '../harness/eventually.ts'
import { DEBIAN_MACHINE, DebianMachine, RELEASES, type Release } from '../harness/hosts/debian-machine.ts'
import { commandIn, sectionOfDocument } from '../harness/hosts/document-steps.ts'
import { type NetworkNamespace, TestNetwork } from '../harness/hosts/network-namespace.ts'
import { Program, run } from '../harness/processes/program.ts'
import { command, describeWith, NETWORK_NAMESPACES, pathOf } from '../harness/runner/describe-with.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { COMPRESSION, VERSION } from './build-package.ts'

const root = new URL('../..', import.meta.url).pathname
const SERVER = '192.0.2.1'
const SERVER_V6 = '2001:db8::1'
const CLIENT = '192.0.2.7'
const STRANGER = 'somebody@elsewhere.example'
const PARTS = ['authd', 'popup', 'sslwrap', 'wrap'] as const
const ACCOUNTS = [
  'auth-relay',
  'auth-relay-login',
  'auth-relay-tls',
  'auth-relay-gate',
  'auth-relay-db',
  'auth-relay-status',
  'auth-relay-device',
] as const

const NEEDS = [
  ...DEBIAN_MACHINE,
  NETWORK_NAMESPACES,
  command('curl'),
  command('strip', 'binutils'),
  command('fail2ban-regex', 'fail2ban'),
  command('man', 'man-db'),
]

/** A file or directory of deploy/ that is not part of the installation itself. */
const EXAMPLE = /`deploy\/((?:grafana|patroni|prometheus|rsyslog|runit)(?:\/[\w.-]+)*)\b/g

const first = inject('debianPackage')

describeWith(NEEDS, 'the Debian package', () => {
  const directory = temporaryDirectory()
  afterAll(directory.remove)

  test('every command has a manual page that does not conflict with those of other POP3 servers', async () => {
    await run(['dpkg-deb', '-x', first, `${directory.path}/files`])
    const pages = `${directory.path}/files/usr/share/man`
    for (const name of [
      'auth-relay',
      'auth-relay.toml',
      'auth-relay-setup-database',
      'pop3d',
      'auth-relay-pop3d',
      'popup',
    ]) {
      const { lines } = await run(['man', '-M', pages, name], { env: { PATH: process.env['PATH'], MANPAGER: 'cat' } })
      expect(lines.join('\n')).toMatch(/^NAME/m)
    }
    expect(existsSync(`${pages}/man8/pop3d.8.gz`)).toBe(false)
  })

  test('the examples that its documents name are in it', async () => {
    await run(['dpkg-deb', '-x', first, `${directory.path}/files`])
    const documents = `${directory.path}/files/usr/share/doc/auth-relay`
    const named = readdirSync(documents)
      .filter(name => name.endsWith('.md'))
      .flatMap(name => [...readFileSync(`${documents}/${name}`, 'utf8').matchAll(EXAMPLE)])
      .map(([, path = '']) => path)
    expect(named).toEqual(
      expect.arrayContaining(['rsyslog/to-authd-tcp.conf', 'patroni/patroni.yml', 'prometheus/auth-relay.rules.yml']),
    )
    expect(named.filter(path => !existsSync(`${documents}/examples/${path}`))).toEqual([])
  })

  // In a separate checkout, because this one may get another commit or another build meanwhile.
  test('the same commit gives the same package in any directory, environment and umask', async () => {
    const places = ['here', 'somewhere/else'].map(place => `${directory.path}/${place}`)
    const [here = '', elsewhere = ''] = places
    await run(['git', 'clone', '-q', '--shared', root, here])
    expect(existsSync(`${here}/package.json`)).toBe(true)
    copyNodeModules(here)
    const build = async (place: string, umask: string, env: Readonly<Record<string, string>>): Promise<string> => {
      const options = { directory: `${place}-packages`, compression: COMPRESSION, version: VERSION }
      const script = `const { packageDeb } = await import('${place}/scripts/package-deb.ts')
        console.log(await packageDeb(${JSON.stringify(options)}))`
      const shell = `umask ${umask} && exec "$0" --input-type=module -e "$1"`
      const built = await run(['/bin/sh', '-c', shell, process.execPath, script], {
        cwd: place,
        env: { PATH: process.env['PATH'], HOME: directory.path, ...env },
      })
      expect(built.ending?.code, built.transcript()).toBe(0)
      return built.lines.at(-1) ?? ''
    }
    const built = await build(here, '022', { TZ: 'UTC', LC_ALL: 'C' })
    mkdirSync(`${directory.path}/somewhere`)
    renameSync(here, elsewhere)
    // A package must not contain files of an earlier build.
    writeFileSync(`${elsewhere}/dist/left.js`, '')
    chmodSync(`${elsewhere}/deploy`, 0o700)
    const rebuilt = await build(elsewhere, '077', { TZ: 'Asia/Tokyo', LANG: 'tr_TR.UTF-8', COLUMNS: '40' })
    const { status, stdout } = spawnSync('cmp', [built, rebuilt], { encoding: 'utf8' })
    // The list of different files explains more than the first octet that differs in two archives.
    expect(status === 0 ? '' : stdout + differenceOf(built, rebuilt, directory.path)).toBe('')
  })
})

/** Prints the body of each request on one line. */
const WEBHOOK = `require('node:http').createServer((request, response) => {
  let body = ''
  request.on('data', chunk => { body += chunk }).on('end', () => { console.log(body); response.end() })
}).listen(8080, '${CLIENT}', () => console.log('listening'))`

describe.each(RELEASES)('%s', release => {
  describeWith(NEEDS, 'the Debian package, from installation to removal', () => life(release))
})

function life(release: Release): void {
  const directory = temporaryDirectory()
  let network: TestNetwork
  let client: NetworkNamespace
  let machine: DebianMachine
  let before: ReadonlySet<string>

  beforeAll(async () => {
    network = new TestNetwork(SERVER, SERVER_V6)
    client = network.client(CLIENT, '2001:db8::7')
    machine = await DebianMachine.boot(network.server, release)
    await machine.install('zsh', 'fish')
    before = await filesOf(machine)
  }, 900_000)
  afterAll(async () => {
    await machine?.stop()
    network?.remove()
    directory.remove()
  }, 60_000)

  const show = async (unit: string, property: string): Promise<string> =>
    machine.must('systemctl', 'show', '--value', '-p', property, unit)
  const install = async (deb: string): Promise<string> => {
    machine.copyIn(deb, '/tmp/auth-relay.deb')
    return machine.must('dpkg', '-i', '/tmp/auth-relay.deb')
  }
  const change = async (expression: string): Promise<void> => {
    await machine.must('sed', '-i', expression, '/etc/auth-relay.toml')
  }
  const curl = (...words: readonly string[]) =>
    run(['curl', '-s', '-k', '-m', '20', ...words], { prefix: client.prefix })
  const recipientFrom = async (from: string): Promise<number> => {
    const smtp = SmtpConversation.over(client.connect({ host: SERVER, port: 25, from }))
    const { code } = await smtp.askFor(STRANGER)
    await smtp.quit()
    return code
  }
  const schema = async (): Promise<number> =>
    Number(
      await machine.must(
        ...['runuser', '-u', 'postgres', '--', 'psql', '-XAtd', 'pop3authd'],
        ...['-c', 'SELECT max(v) FROM schema_version'],
      ),
    )
  const showJournalOnFailure = (): void => {
    onTestFailed(async () => console.error(await machine.answer('journalctl', '--no-pager', '-o', 'short', '-n', '80')))
  }

  test('installed: the package prints the next steps, and no daemon runs', async () => {
    showJournalOnFailure()
    expect(await install(first)).toContain('auth-relay is installed and not running. Next:')
    for (const part of PARTS) {
      expect(await machine.answer('systemctl', 'is-enabled', `auth-relay-${part}.service`)).toBe('disabled')
      expect(await machine.answer('systemctl', 'is-active', `auth-relay-${part}.service`)).toBe('inactive')
    }
    expect(await machine.sh('systemd-analyze verify --man=no /usr/lib/systemd/system/auth-relay*')).toBe('')
    for (const account of ACCOUNTS) expect(await machine.must('id', '-un', account)).toBe(account)
  })

  test('every command exists and prints its version', async () => {
    expect(await machine.must('auth-relay', '--version')).toMatch(/^auth-relay \d/)
    for (const part of [...PARTS, 'pop3d']) {
      expect(await machine.must(`auth-relay-${part}`, '--version')).toMatch(new RegExp(`^${part} \\(auth-relay\\) `))
      expect(await machine.must(`/usr/lib/auth-relay/bin/${part}`, '--version')).toMatch(new RegExp(`^${part} `))
    }
    const completed =
      'source /usr/share/bash-completion/completions/auth-relay; COMP_WORDS=(auth-relay expl); COMP_CWORD=1'
    expect(await machine.must('bash', '-c', `${completed}; _auth_relay; echo $COMPREPLY`)).toBe('explain')
    expect(await machine.must('env', 'HOME=/tmp', 'fish', '-c', 'complete -C "auth-relay expl"')).toMatch(
      /^explain\t\S/,
    )
    expect(await machine.must('env', 'HOME=/tmp', 'fish', '-c', 'complete -C "auth-relay show --js"')).toMatch(
      /^--json\t\S/,
    )
    const loaded = 'autoload -Uz compinit && compinit -u -d /tmp/zcompdump && print $_comps[auth-relay]'
    expect(await machine.must('zsh', '-fc', loaded)).toBe('_auth-relay')
    const offered = await machine.must('zsh', '-fc', ZSH_OFFERS)
    expect(offered).toMatch(/^explain:\S/m)
  })

  test('the demonstration prints where it can run, because the package contains no PostgreSQL', async () => {
    const { lines, ending } = await machine.run('auth-relay', 'up', '--demo', '--dir', '/tmp/demo')
    expect(ending?.code).not.toBe(0)
    expect(lines.join('\n')).toContain('The demonstration runs from a checkout: npm ci && npm start')
  })

  test('an account can read only the secrets that it needs, and the settings file contains none', async () => {
    const secrets = await machine.must('stat', '-c', '%n %a %U %G', '/etc/auth-relay.toml', ...SECRETS)
    expect(secrets.split('\n')).toEqual([
      '/etc/auth-relay.toml 644 root root',
      '/etc/auth-relay/dbpass 640 root auth-relay',
      '/etc/auth-relay/sslhack.pass 640 root auth-relay-tls',
      '/etc/auth-relay/status-dbpass 640 root auth-relay-status',
      '/etc/auth-relay/wrap-dbpass 640 root auth-relay-gate',
    ])
    expect(await machine.must('cat', '/etc/auth-relay.toml')).not.toMatch(/^\s*\w*dbpass = "./m)
  })

  test('not configured: a daemon refuses in one line, and is not started again', async () => {
    showJournalOnFailure()
    expect((await machine.run('systemctl', 'start', 'auth-relay-popup.service')).ending?.code).not.toBe(0)
    expect(await show('auth-relay-popup.service', 'ExecMainStatus')).toBe('100')
    expect(await show('auth-relay-popup.service', 'NRestarts')).toBe('0')
    expect(await machine.must('journalctl', '-o', 'cat', '-u', 'auth-relay-popup.service')).toContain(
      'read the file, then set configured = true',
    )
    await machine.must('systemctl', 'reset-failed')
    await machine.must('systemctl', 'stop', 'auth-relay-authd.socket')
  })

  test('configured by the printed steps: everything runs, each program under its own account', async () => {
    showJournalOnFailure()
    // The roles do not exist yet; a command of the package makes them.
    expect(await machine.answer('auth-relay', 'check', '--quiet')).toMatch(
      /password authentication failed .*\n +do: make the role pop3authd and its password with auth-relay-setup-database, /,
    )
    expect(await machine.must('auth-relay-setup-database')).toMatch(/^Migrated from schema 0 to \d+\.$/)
    expect(await machine.must('auth-relay-setup-database')).toMatch(/^The database is up to date/)
    await machine.must('sh', '-c', MAKE_ANN)
    machine.copyIn(`${root}test/harness/smtp/smtpd.sh`, '/usr/local/bin/smtpd.sh')
    await machine.must('chmod', '755', '/usr/local/bin/smtpd.sh')
    await machine.must('sh', '-c', QMAIL_DROP_IN)
    await change('s/^configured = false/configured = true/')
    const wrap =
      'listen = ["*:25"]\\nsmtpd = ["\\/usr\\/local\\/bin\\/smtpd.sh", "example.org"]\\nsmtpd_user = "qmaild"'
    await change(`s/^\\[wrap\\]/[wrap]\\n${wrap}/`)
    expect((await machine.answer('auth-relay', 'check', '--quiet')).split('\n').at(-1)).toBe('Safe.')
    await machine.must('systemctl', 'enable', '--now', '-q', 'auth-relay.target', ...SOCKETS, ...SERVICES)
    const accounts: Record<string, string> = {}
    for (const part of PARTS) {
      expect(await machine.answer('systemctl', 'is-active', `auth-relay-${part}.service`)).toBe('active')
      const pid = await show(`auth-relay-${part}.service`, 'MainPID')
      const status = await machine.must('cat', `/proc/${pid}/status`)
      const uid = /^Uid:\t(\d+)\t/m.exec(status)?.[1] ?? ''
      const capabilities = BigInt(`0x${/^CapEff:\t(\w+)$/m.exec(status)?.[1]}`)
      accounts[part] = `${await machine.must('id', '-un', uid)} ${capabilitiesIn(capabilities)}`
    }
    expect(accounts).toEqual({
      authd: 'auth-relay ',
      popup: 'root 0,2,5,6,7,10,19,29',
      sslwrap: 'auth-relay-tls 10',
      wrap: 'auth-relay-gate ',
    })
  })

  test('a POP3 login opens the relay for that address alone', async () => {
    showJournalOnFailure()
    expect(await recipientFrom(CLIENT)).toBe(553)
    const login = await curl(`pop3://${SERVER}/1`, '-u', 'ann:sesame')
    expect(login.lines.join('\n')).toContain('Subject: hello')
    expect(await recipientFrom(CLIENT)).toBe(250)
    expect(await machine.must('auth-relay', 'explain', CLIENT)).toContain(`Mail from ${CLIENT} is relayed.`)
    client.addAddress('192.0.2.8')
    expect(await recipientFrom('192.0.2.8')).toBe(553)
  })

  test('over TLS too, with the address of the client and not of the proxy', async () => {
    showJournalOnFailure()
    expect((await curl(`pop3s://[${SERVER_V6}]/`, '-u', 'ann:sesame')).ending?.code).toBe(0)
    expect(await machine.must('auth-relay', 'explain', '2001:db8::7')).toContain('is relayed')
    expect(await machine.answer('auth-relay', 'explain', '127.0.0.1')).toContain('is not relayed')
  })

  test('status names the unit of each program, and reports no fault', async () => {
    showJournalOnFailure()
    const screen = await machine.must('auth-relay', 'status')
    for (const part of PARTS)
      expect(screen).toMatch(new RegExp(`^  ${part} +since \\S+ \\S+, pid \\d+, auth-relay-${part}\\.service$`, 'm'))
    expect(screen).toMatch(/^ {2}logins, last hour +[1-9]\d* granted, \d+ refused$/m)
    expect(screen.split('\n').at(-1)).toBe('Nothing is wrong.')
  })

  test('the status page, if it is enabled', async () => {
    showJournalOnFailure()
    await change('s/^\\[status-page\\]/[status-page]\\nlisten = "127.0.0.1:8110"/')
    await machine.must('systemctl', 'enable', '--now', '-q', 'auth-relay-status-page.service')
    const page = await run(['curl', '-s', '-m', '10', 'http://127.0.0.1:8110/'], { prefix: network.server.prefix })
    expect(page.lines.join('\n')).toContain(CLIENT)
  })

  test('the alerts, if they are enabled: an alarm arrives at the webhook and by mail', async () => {
    showJournalOnFailure()
    const hook = new Program('webhook', [process.execPath, '-e', WEBHOOK], { prefix: client.prefix })
    try {
      await hook.waitForLine(/^listening$/)
      await machine.sh(`umask 027
        echo 'http://${CLIENT}:8080/hook' > /etc/auth-relay/webhook && chgrp auth-relay /etc/auth-relay/webhook
        install -d -m 700 -o auth-relay /var/lib/alarm-mails
        printf '#!/bin/sh\\n{ echo "TO $*"; cat; } >> /var/lib/alarm-mails/mails\\n' > /usr/local/bin/mailer
        chmod 755 /usr/local/bin/mailer`)
      const channels = 'mail_to = ["noc@example.org"]\\nsendmail = ["\\/usr\\/local\\/bin\\/mailer"]'
      const webhook = 'webhook_file = "\\/etc\\/auth-relay\\/webhook"'
      await change(`s/^\\[alerts\\]/[alerts]\\n${channels}\\n${webhook}\\nevery = "10s"\\nlogin_addresses = 3/`)
      await machine.must('systemctl', 'enable', '--now', '-q', 'auth-relay-alerts.service')
      expect(await machine.must('auth-relay', 'alerts')).toBe('There is no alarm.')
      // Two addresses have logged in before. The other two make four addresses of one login within
      // an hour.
      for (const address of ['192.0.2.8', '192.0.2.21']) {
        if (address !== '192.0.2.8') client.addAddress(address)
        expect((await curl('--interface', address, `pop3://${SERVER}/`, '-u', 'ann:sesame')).ending?.code).toBe(0)
      }
      const posted: unknown = JSON.parse(await hook.waitForLine(/"rule":"login_spread"/, 120_000))
      expect(posted).toMatchObject({
        state: 'start',
        subject: 'ann',
        until: null,
        detail: '4 addresses within an hour',
      })
      const mail = await eventually('the mail arrives', async () => machine.answer('cat', '/var/lib/alarm-mails/mails'))
      expect(mail).toMatch(/^TO -- noc@example.org$/m)
      expect(mail).toMatch(/^Subject: \[auth-relay\] ALARM: login_spread ann$/m)
      expect(await machine.answer('auth-relay', 'alerts')).toMatch(/^ALARM {2}login_spread: ann, 4 addresses/m)
      expect(await show('auth-relay-alerts.service', 'NRestarts')).toBe('0')
      const pid = await show('auth-relay-alerts.service', 'MainPID')
      const uid = /^Uid:\t(\d+)\t/m.exec(await machine.must('cat', `/proc/${pid}/status`))?.[1] ?? ''
      expect(await machine.must('id', '-un', uid)).toBe('auth-relay')
    } finally {
      await hook.stop()
      await machine.answer('systemctl', 'disable', '--now', '-q', 'auth-relay-alerts.service')
      await machine.answer('rm', '-rf', '/var/lib/alarm-mails', '/usr/local/bin/mailer', '/etc/auth-relay/webhook')
      for (const line of ['mail_to', 'sendmail', 'webhook_file', 'every', 'login_addresses'])
        await change(`/^${line} = /d`)
    }
  })

  test('the smtpd can use its setuid programs, and has no rights of the gate', async () => {
    const smtp = SmtpConversation.over(client.connect({ host: SERVER, port: 25 }))
    await smtp.expectSmtp(/^220/)
    const [pid = ''] = (await machine.must('pidof', '-x', 'smtpd.sh')).split(' ')
    const status = await machine.must('cat', `/proc/${pid}/status`)
    expect(status).toMatch(/^CapEff:\t0+$/m)
    expect(status).toMatch(/^NoNewPrivs:\t0$/m)
    smtp.close()
  })

  test('other daemons through rsyslog: the lines of the documents, over TCP and FIFO', async () => {
    showJournalOnFailure()
    const examples = '/usr/share/doc/auth-relay/examples/rsyslog'
    await machine.must('cp', `${examples}/to-authd-tcp.conf`, '/etc/rsyslog.d/40-auth-relay-authd.conf')
    await change('s/^\\[authd\\]/[authd]\\nsyslog_listen = ["127.0.0.1:6514"]\\ncheck_daemon_dovecot = true/')
    await machine.must('systemctl', 'restart', 'auth-relay-authd.service', 'rsyslog.service')
    await loggedBy(DOVECOT('192.0.2.9'))
    await machine.must(
      'sh',
      '-c',
      `cp ${examples}/to-authd-fifo.conf /etc/rsyslog.d/40-auth-relay-authd.conf
      ${commandIn(sectionOfDocument('INSTALL', 'Log sources'), /^mkdir -p \S+ && mkfifo /)}`,
    )
    await change('s/^syslog_listen = .*/syslog_fifo = "\\/var\\/pop3-auth\\/fifo"/')
    await machine.must('systemctl', 'restart', 'auth-relay-authd.service', 'rsyslog.service')
    await loggedBy(DOVECOT('192.0.2.10'))
    await machine.must('rm', '-r', '/etc/rsyslog.d/40-auth-relay-authd.conf', '/var/pop3-auth')
    await change('/^syslog_fifo = /d')
    await machine.must('systemctl', 'restart', 'auth-relay-authd.service', 'rsyslog.service')

    async function loggedBy(message: string): Promise<void> {
      const address = /rip=([\d.]+)/.exec(message)?.[1] ?? ''
      await eventually(`${address} is granted`, async () => {
        await machine.must('logger', '-t', 'dovecot', '-p', 'mail.info', message)
        return (await machine.run('auth-relay', 'explain', address)).ending?.code === 0
      })
    }
  })

  test('the lines of the daemons go to a separate log, which logrotate rotates', async () => {
    const log = '/var/log/auth-relay.log'
    expect(await machine.must('cat', log)).toMatch(
      /auth-relay-popup\[\d+\]: popup: level=info event=login_accepted .*user=ann/,
    )
    const rights = () => machine.must('stat', '-c', '%a %U %G', log)
    expect(await rights()).toBe('640 root adm')
    await machine.must('logrotate', '-f', '/etc/logrotate.d/auth-relay')
    expect(await machine.must('cat', `${log}.1`)).toContain('event=login_accepted')
    await machine.must('systemctl', 'reload', 'auth-relay-popup.service')
    await eventually('rsyslog writes to the new file', async () =>
      (await machine.answer('cat', log)).includes('event=settings_reloaded'),
    )
    expect(await rights()).toBe('640 root adm')
  })

  test('reloaded by the command of INSTALL: new settings apply, and every program keeps running', async () => {
    showJournalOnFailure()
    const command = /^`(systemctl reload 'auth-relay-\*\.service')`/m.exec(
      readFileSync(`${root}docs/INSTALL.md`, 'utf8'),
    )?.[1]
    const pids = () => Promise.all([...PARTS, 'status-page'].map(part => show(`auth-relay-${part}.service`, 'MainPID')))
    const before = await pids()
    expect(await recipientFrom(CLIENT)).toBe(250)
    await change(`s/^\\[grants\\]/[grants]\\nnever_grant = ["${CLIENT}"]/`)
    await machine.sh(`${command}`)
    await eventually('the relay is closed', async () => (await recipientFrom(CLIENT)) === 553)
    expect((await curl(`pop3://${SERVER}/`, '-u', 'ann:sesame')).ending?.code).toBe(0)
    await change('/^never_grant = /d')
    await machine.sh(`${command}`)
    await eventually('a login opens the relay again', async () => {
      await curl(`pop3://${SERVER}/`, '-u', 'ann:sesame')
      return (await recipientFrom(CLIENT)) === 250
    })
    expect(await pids()).toEqual(before)
  })

  test("fail2ban's filter finds each wrong password once, and nothing that a client forged", async () => {
    await curl(`pop3://${SERVER}/`, '-u', 'ann:wrong')
    await curl(`pop3s://${SERVER}/`, '-u', 'ip=203.0.113.9 reason=badauth:wrong')
    const unit = '_SYSTEMD_UNIT=auth-relay-popup.service'
    const journal = await eventually('both failures are in the journal', async () => {
      const text = await machine.must('journalctl', '--no-pager', '-o', 'short', unit)
      return text.split('authrelay v=1 ev=fail').length === 3 && text
    })
    writeFileSync(`${directory.path}/journal`, `${journal}\n`)
    const config = `${directory.path}/fail2ban`
    cpSync('/etc/fail2ban', config, { recursive: true })
    copyFileSync(machine.path('/etc/fail2ban/filter.d/auth-relay.conf'), `${config}/filter.d/auth-relay.conf`)
    const regex = [pathOf('fail2ban-regex') ?? '', '-c', config, '-o', 'ip', `${directory.path}/journal`]
    for (const mode of ['syslog', 'log']) {
      expect((await run([...regex, `auth-relay[mode=${mode}]`])).lines).toEqual([CLIENT, CLIENT])
    }
    copyFileSync(machine.path('/etc/fail2ban/jail.d/auth-relay.conf'), `${config}/jail.d/auth-relay.conf`)
    writeFileSync(`${config}/jail.local`, '[auth-relay]\nenabled = true\n')
    const jail = await run([pathOf('fail2ban-client') ?? '', '-c', config, '-d'])
    expect(jail.lines).toContain("['add', 'auth-relay', 'systemd']")
    expect(jail.lines).toContain(`['set', 'auth-relay', 'addjournalmatch', '${unit}']`)
    expect(jail.lines).toContain("['start', 'auth-relay']")
  })

  test('an upgrade: an SMTP session continues, POP3 clients wait instead of being refused, grants stay', async () => {
    showJournalOnFailure()
    const smtp = SmtpConversation.over(client.connect({ host: SERVER, port: 25 }))
    await smtp.expectSmtp(/^220/)
    const pids = Object.fromEntries(
      await Promise.all(PARTS.map(async part => [part, await show(`auth-relay-${part}.service`, 'MainPID')] as const)),
    )
    const logins: (number | null | undefined)[] = []
    let upgraded = false
    const installed = install(nextVersion(first, directory.path, 2)).finally(() => {
      upgraded = true
    })
    while (!upgraded) logins.push((await curl(`pop3://${SERVER}/`, '-u', 'ann:sesame')).ending?.code)
    await installed
    expect(new Set(logins)).toEqual(new Set([0]))
    for (const part of PARTS) {
      expect(await machine.answer('systemctl', 'is-active', `auth-relay-${part}.service`)).toBe('active')
      expect(await show(`auth-relay-${part}.service`, 'MainPID')).not.toBe(pids[part])
    }
    smtp.say('HELO client.example.net')
    await smtp.expectSmtp(/^250/)
    await smtp.quit()
    expect(await recipientFrom(CLIENT)).toBe(250)
    expect(await machine.must('dpkg-query', '-W', '-f', `\${Version}`, 'auth-relay')).toBe('1.0.0~test2-1')
  })

  test('the upgrade has migrated the schema', async () => {
    expect(await schema()).toBe(MIGRATIONS + 1)
  })

  test('an upgrade while the database is down: programs that need the new schema are not restarted until the database has it', async () => {
    showJournalOnFailure()
    const pidsOf = () =>
      Promise.all(['authd', 'wrap', 'status-page', 'popup'].map(part => show(`auth-relay-${part}.service`, 'MainPID')))
    const old = await pidsOf()
    await machine.must('systemctl', 'stop', 'postgresql@*.service')
    const output = await install(nextVersion(first, directory.path, 3))
    expect(output).toContain('auth-relay-setup-database: PostgreSQL does not answer')
    const now = await pidsOf()
    expect(now.slice(0, 3)).toEqual(old.slice(0, 3))
    expect(now[3]).not.toBe(old[3])
    await machine.must('systemctl', 'start', 'postgresql.service')
    await eventually('the relay is open as before', async () => (await recipientFrom(CLIENT)) === 250)
    const command = /^ {2}(auth-relay-setup-database && .*)$/m.exec(output)?.[1] ?? ''
    await eventually('PostgreSQL answers', async () => (await machine.run('sh', '-ec', command)).ending?.code === 0)
    expect(await schema()).toBe(MIGRATIONS + 2)
    expect((await pidsOf()).slice(0, 3)).not.toEqual(old.slice(0, 3))
    expect(await recipientFrom(CLIENT)).toBe(250)
  })

  test('restored on a new PostgreSQL server by the commands of OPERATING: histories and grants are there, and the roles have no more rights', async () => {
    showJournalOnFailure()
    const count = () =>
      machine.must(
        ...['runuser', '-u', 'postgres', '--', 'psql', '-XAtd', 'pop3authd'],
        ...['-c', 'SELECT count(*) FROM login_event'],
      )
    const logins = await count()
    expect(Number(logins)).toBeGreaterThan(0)
    await machine.sh(`
      systemctl stop auth-relay-authd.service auth-relay-wrap.service auth-relay-status-page.service
      runuser -u postgres -- pg_dump pop3authd > /var/backups/pop3authd.dump
      pg_dropcluster --stop "$(ls /etc/postgresql)" main && pg_createcluster --start "$(basename /usr/lib/postgresql/*)" main`)
    // The package has auth-relay-setup-database for the last line.
    const [, commands] =
      /^```sh\n(runuser -u postgres -- createdb pop3authd\n[^`]*-f pop3authd\.dump\n)auth-relay migrate /m.exec(
        readFileSync(`${root}docs/OPERATING.md`, 'utf8'),
      ) ?? []
    await machine.sh(`cd /var/backups\n${commands}\nauth-relay-setup-database`)
    await machine.sh('systemctl start auth-relay-authd.service auth-relay-wrap.service auth-relay-status-page.service')
    expect(await count()).toBe(logins)
    expect(await machine.must('auth-relay', 'explain', CLIENT)).toContain(`Mail from ${CLIENT} is relayed.`)
    expect(await recipientFrom(CLIENT)).toBe(250)
    client.addAddress('192.0.2.11')
    expect((await curl('--interface', '192.0.2.11', `pop3://${SERVER}/`, '-u', 'ann:sesame')).ending?.code).toBe(0)
    expect(await recipientFrom('192.0.2.11')).toBe(250)
    const mayWrite = "SELECT has_table_privilege('authwrap', 'grants', 'INSERT')"
    expect(await machine.must('runuser', '-u', 'postgres', '--', 'psql', '-XAtd', 'pop3authd', '-c', mayWrite)).toBe(
      'f',
    )
  })

  test('the watchdog restarts a daemon that hangs', async () => {
    showJournalOnFailure()
    await machine.must('sh', '-c', SHORT_WATCHDOG)
    const pid = await show('auth-relay-authd.service', 'MainPID')
    expect(Number(pid)).toBeGreaterThan(1) // 0 would be the process group of the test
    await machine.sh(`kill -STOP ${pid}`)
    await eventually('another authd runs', async () => {
      const now = await show('auth-relay-authd.service', 'MainPID')
      return now !== '0' && now !== pid && (await show('auth-relay-authd.service', 'ActiveState')) === 'active'
    })
    await machine.must('rm', '-r', '/etc/systemd/system/auth-relay-authd.service.d')
    expect((await curl(`pop3://${SERVER}/`, '-u', 'ann:sesame')).ending?.code).toBe(0)
  })

  test('purged: no process runs, and no file is left', async () => {
    showJournalOnFailure()
    await machine.must('rm', '-r', '/etc/systemd/system/auth-relay-wrap.service.d')
    // init keeps the former text beside the file.
    await machine.sh(`sed -i 's/^configured = true$/configured = false/' /etc/auth-relay.toml
      auth-relay init --for postfix
      sed -i 's/^configured = false$/configured = true/' /etc/auth-relay.toml
      test -e /etc/auth-relay.toml.old`)
    await machine.must('dpkg', '--remove', 'auth-relay')
    expect(await machine.must('cat', '/etc/auth-relay.toml')).toContain('configured = true')
    expect(
      await machine.answer('sh', '-c', `cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[/]usr/lib/auth-relay'`),
    ).toBe('')
    await machine.must('dpkg', '--purge', 'auth-relay')
    const after = await filesOf(machine)
    expect([...after].filter(path => !before.has(path) && !OTHERS.test(path))).toEqual([])
    expect([...before].filter(path => !after.has(path) && !OTHERS.test(path))).toEqual([])
    expect(
      await machine.answer(
        'sh',
        '-c',
        'getent passwd | grep ^auth-relay; getent group | grep ^auth-relay; ls -d /run/auth-relay*',
      ),
    ).toBe("ls: cannot access '/run/auth-relay*': No such file or directory")
    expect(await machine.answer('systemctl', 'list-units', '--all', '--no-legend', 'auth-relay*')).toBe('')
  })

  test('lintian of this release has no finding', async () => {
    await machine.install('lintian')
    machine.copyIn(first, '/tmp/auth-relay.deb')
    // dpkg of Debian 12 can read zstd, but its lintian cannot.
    await machine.sh(
      `cd /tmp && dpkg-deb -R auth-relay.deb tree && dpkg-deb --root-owner-group -Zgzip -z1 -b tree lintian.deb`,
    )
    const { ending, lines } = await machine.run(
      ...['lintian', '--allow-root', '--fail-on', 'error,warning', '/tmp/lintian.deb'],
    )
    expect({ code: ending?.code, findings: lines.filter(line => /^[EW]:/.test(line)) }).toEqual({
      code: 0,
      findings: [],
    })
  }, 900_000)
}

const MIGRATIONS = readdirSync(`${root}sql`).filter(name => /^\d{6}-/.test(name)).length

/** Names of the files that differ between two packages. */
function differenceOf(one: string, other: string, directory: string): string {
  const trees = [one, other].map((deb, index) => {
    const tree = `${directory}/compared-${index}`
    execFileSync('dpkg-deb', ['-R', deb, tree])
    return tree
  })
  return spawnSync('diff', ['-rq', ...trees], { encoding: 'utf8' }).stdout
}

/** The same programs as version 1.0.0~testN, with one more migration. */
function nextVersion(deb: string, directory: string, number: number): string {
  const tree = `${directory}/tree-${number}`
  const path = `${directory}/auth-relay_test${number}.deb`
  execFileSync('dpkg-deb', ['-R', deb, tree])
  const control = readFileSync(`${tree}/DEBIAN/control`, 'utf8')
  writeFileSync(`${tree}/DEBIAN/control`, control.replace(/^Version: .*$/m, `Version: 1.0.0~test${number}-1`))
  for (let more = 1; more < number; more++) {
    const version = MIGRATIONS + more
    writeFileSync(
      `${tree}/usr/lib/auth-relay/sql/${String(version).padStart(6, '0')}-test.sql`,
      `INSERT INTO schema_version (v) VALUES (${version});\nCREATE TABLE test_${version} (x integer);\n`,
    )
  }
  execFileSync('dpkg-deb', ['--root-owner-group', ...COMPRESSION, '-b', tree, path], { stdio: 'ignore' })
  return path
}

const SECRETS = ['dbpass', 'sslhack.pass', 'status-dbpass', 'wrap-dbpass'].map(name => `/etc/auth-relay/${name}`)
const SOCKETS = ['auth-relay-authd.socket', 'auth-relay-popup.socket']
const SERVICES = PARTS.map(part => `auth-relay-${part}.service`)

/** Files that this test, PostgreSQL and the system made meanwhile. */
const OTHERS =
  /^\/(home|var\/(backups|cache|lib\/(dpkg|logrotate|postgresql|systemd)|log\/(?!auth-relay)|spool|tmp)|usr\/local|etc\/(passwd|group|shadow|gshadow|subuid|subgid)-?$|etc\/\.pwd\.lock)/

const filesOf = async (machine: DebianMachine): Promise<ReadonlySet<string>> =>
  new Set((await machine.must('find', '/', '-xdev')).split('\n'))

const DOVECOT = (address: string): string =>
  `pop3-login: Login: user=<bob>, method=PLAIN, rip=${address}, lip=${SERVER}, mpid=1, session=<x>`

const MAKE_ANN = `set -e
adduser --quiet --disabled-password --gecos '' ann
mkdir -p /home/ann/Maildir/new /home/ann/Maildir/cur /home/ann/Maildir/tmp
printf 'Subject: hello\\n\\nAt noon?\\n' > /home/ann/Maildir/new/1700000000.M1.mx
touch -d 2023-01-01 /home/ann/Maildir/new/*
chown -R ann: /home/ann
chmod 600 /home/ann/Maildir/new/*
echo sesame | auth-relay passwd ann`

const QMAIL_DROP_IN = `set -e
adduser --quiet --system --group --no-create-home --home /nonexistent qmaild
mkdir -p /etc/systemd/system/auth-relay-wrap.service.d
sed /ReadWritePaths/d /usr/share/doc/auth-relay/examples/systemd/smtpd.conf > /etc/systemd/system/auth-relay-wrap.service.d/smtpd.conf
systemctl daemon-reload`

/**
 * The words that the zsh function offers as verbs. The function passes the list to _describe by
 * name.
 */
const ZSH_OFFERS = `compdef() { : }
  source /usr/share/zsh/vendor-completions/_auth-relay
  _describe() { print -l -- "\${(@P)4}" }
  words=(auth-relay expl) CURRENT=2
  _auth_relay`

const SHORT_WATCHDOG = `set -e
mkdir /etc/systemd/system/auth-relay-authd.service.d
printf '[Service]\\nWatchdogSec=2\\n' > /etc/systemd/system/auth-relay-authd.service.d/test.conf
systemctl daemon-reload
systemctl restart auth-relay-authd.service`

const capabilitiesIn = (set: bigint): string =>
  Array.from({ length: 64 }, (_, bit) => bit)
    .filter(bit => (set & (1n << BigInt(bit))) !== 0n)
    .join(',')
