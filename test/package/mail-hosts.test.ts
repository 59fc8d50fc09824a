import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, inject, onTestFailed, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { DEBIAN_MACHINE, type DebianMachine, RELEASES, type Release } from '../harness/hosts/debian-machine.ts'
import { blockOf, commandIn, sectionOfDocument } from '../harness/hosts/document-steps.ts'
import { installBlock } from '../harness/hosts/install-recipe.ts'
import { dovecotMaildirs, EXIM_INSERT_ACL, EXIM_SITE, MailHost, POSTFIX_SITE } from '../harness/hosts/mail-host.ts'
import { command, describeWith, NETWORK_NAMESPACES } from '../harness/runner/describe-with.ts'

/** Lines by section of the settings file. Lines of the empty name are appended. */
type Lines = Readonly<Record<string, readonly string[]>>

// Typical mail hosts, on both releases: Debian's own POP3 and SMTP servers, and auth-relay from its
// package.
describe.each(RELEASES)('%s', release => {
  describeWith(
    [...DEBIAN_MACHINE, NETWORK_NAMESPACES, command('curl'), command('strip', 'binutils')],
    'the Debian package together with mail servers of Debian',
    () => hosts(release),
  )
})

function hosts(release: Release): void {
  let host: MailHost
  let machine: DebianMachine

  beforeAll(async () => {
    host = await MailHost.boot(release)
    machine = host.machine
    machine.copyIn(inject('debianPackage'), '/tmp/auth-relay.deb')
    // rsyslog and PostgreSQL are installed; the packages of mail servers make their accounts.
    await machine.install('/tmp/auth-relay.deb')
    await machine.must('auth-relay-setup-database')
  }, 900_000)
  afterAll(() => host?.stop(), 60_000)

  const showJournalOnFailure = (): void => {
    onTestFailed(async () => console.error(await host.journal()))
  }

  /**
   * The settings file of the package with these lines. Units that it names as enabled run, the
   * others do not.
   */
  async function configure(lines: Lines, ...parts: readonly string[]): Promise<void> {
    const fresh = await machine.must('cat', '/usr/share/auth-relay/auth-relay.toml')
    const { '': last = [], ...sections } = lines
    let text = fresh.replace('configured = false', 'configured = true')
    for (const [section, own] of Object.entries(sections)) {
      text = text.replace(`\n[${section}]\n`, [`\n[${section}]`, ...own, ''].join('\n'))
    }
    machine.write('/etc/auth-relay.toml', [text, ...last, ''].join('\n'))
    await machine.sh(`systemctl disable --now -q auth-relay-authd auth-relay-popup auth-relay-sslwrap auth-relay-wrap
      systemctl enable --now -q auth-relay.target ${parts.map(part => `auth-relay-${part}`).join(' ')}`)
  }

  /**
   * check reports that the mail server may not query the gate, and names the command of INSTALL.
   */
  async function joinsGroup(command: string): Promise<void> {
    expect(await machine.answer('auth-relay', 'check', '--quiet')).toContain(`do: ${command}\n`)
    await machine.sh(command)
    expect(await machine.answer('auth-relay', 'check', '--quiet')).not.toContain(command)
  }

  const dropIn = (name: string): Promise<string> =>
    machine.sh(`directory=/etc/systemd/system/auth-relay-authd.service.d
      rm -rf $directory && mkdir -p $directory
      cp /usr/share/doc/auth-relay/examples/systemd/${name}.conf $directory/
      systemctl daemon-reload`)

  const POLICY = 'policy_listen = ["127.0.0.1:10040"]'
  const DOVECOT = 'check_daemon_dovecot = true'

  test('Dovecot and Postfix: authd reads the log through rsyslog, and Postfix queries the gate from its chroot', async () => {
    showJournalOnFailure()
    await machine.install('dovecot-pop3d', 'postfix')
    machine.write('/etc/dovecot/local.conf', dovecotMaildirs(release))
    await machine.sh(`${POSTFIX_SITE}
      postconf -e 'smtpd_relay_restrictions = permit_mynetworks, check_policy_service { inet:127.0.0.1:10040, default_action=DUNNO }, reject_unauth_destination'
      systemctl restart dovecot.service postfix.service
      cp /usr/share/doc/auth-relay/examples/rsyslog/to-authd-tcp.conf /etc/rsyslog.d/40-auth-relay-authd.conf`)
    expect(await machine.must('postconf', '-M', 'smtp/inet')).toMatch(/^smtp +inet +n +- +y /)
    await configure(
      { authd: ['syslog_listen = ["127.0.0.1:6514"]', DOVECOT], wrap: [POLICY], popup: ['listen = []'] },
      'authd',
      'wrap',
    )
    await machine.must('systemctl', 'restart', 'rsyslog.service')
    await host.opensRelay(host.newAddress(), 'pop3s')
    await host.opensRelay('2001:db8::7', 'pop3s')
  })

  test('without the gate Postfix accepts mail for its own users and relays for no client', async () => {
    showJournalOnFailure()
    await machine.must('systemctl', 'stop', 'auth-relay-wrap.service')
    expect(await host.recipientFrom('2001:db8::7')).toBe(554)
    expect(await host.localRecipientFrom('2001:db8::7')).toBe(250)
    await machine.must('systemctl', 'start', 'auth-relay-wrap.service')
    expect(await host.recipientFrom('2001:db8::7')).toBe(250)
  })

  test('without the database the relay is closed, and Postfix accepts mail for its own users', async () => {
    showJournalOnFailure()
    await machine.must('systemctl', 'stop', 'postgresql@*.service')
    expect(await host.recipientFrom('2001:db8::7')).toBe(554)
    expect(await host.localRecipientFrom('2001:db8::7')).toBe(250)
    await machine.must('systemctl', 'start', 'postgresql.service')
    await eventually('the relay is open as before', async () => (await host.recipientFrom('2001:db8::7')) === 250)
  })

  test('an smtpd outside the chroot reaches a Unix socket of the gate', async () => {
    showJournalOnFailure()
    await machine.sh(`
      postconf -F smtp/inet/chroot=n
      postconf -e 'smtpd_relay_restrictions = permit_mynetworks, check_policy_service { unix:/run/auth-relay/gate/policy.sock, default_action=DUNNO }, reject_unauth_destination'
      systemctl restart postfix.service`)
    const wrap = ['policy_listen = ["unix:/run/auth-relay/gate/policy.sock", "127.0.0.1:10040"]']
    await configure(
      { authd: ['syslog_listen = ["127.0.0.1:6514"]', DOVECOT], wrap, popup: ['listen = []'] },
      'authd',
      'wrap',
    )
    await joinsGroup(documented(/^adduser postfix .*$/m))
    await host.opensRelay(host.newAddress(), 'pop3s')
  })

  test('a socket elsewhere in /run/auth-relay: the gate names the directory that it needs', async () => {
    showJournalOnFailure()
    await machine.sh('sed -i s,/run/auth-relay/gate/policy.sock,/run/auth-relay/policy.sock, /etc/auth-relay.toml')
    expect((await machine.run('systemctl', 'restart', 'auth-relay-wrap.service')).ending?.code).not.toBe(0)
    expect(await machine.must('journalctl', '-o', 'cat', '-u', 'auth-relay-wrap.service')).toContain(
      'account auth-relay-gate may not write in /run/auth-relay: give the directory to it, or choose its own directory in wrap.policy_listen',
    )
    await machine.must('systemctl', 'reset-failed', 'auth-relay-wrap.service')
  })

  test('the gate writes the cdb of tcpserver with the drop-in of INSTALL', async () => {
    showJournalOnFailure()
    await machine.sh('echo :allow > /etc/tcp.smtp && install -d -o auth-relay-gate /etc/tcp.smtp.d')
    const cdb = ['tcprules_static = "/etc/tcp.smtp"', 'tcprules_cdb = "/etc/tcp.smtp.d/tcp.smtp.cdb"']
    const authd = ['syslog_listen = ["127.0.0.1:6514"]', DOVECOT]
    await configure({ authd, wrap: [POLICY, ...cdb], popup: ['listen = []'] }, 'authd')
    expect(await machine.answer('auth-relay', 'check', '--quiet')).toContain(
      'wrap.tcprules_cdb: ProtectSystem=strict of the unit auth-relay-wrap makes it read-only: /etc/tcp.smtp.d: ',
    )
    await machine.sh(blockOf(sectionOfDocument('INSTALL', 'qmail and notqmail'), 'sh', 'wrap-cdb.conf'))
    expect(await machine.answer('auth-relay', 'check')).toMatch(
      /^fine +wrap\.tcprules_cdb: auth-relay-gate can replace /m,
    )
    await eventually('the gate has written the cdb', async () =>
      (await machine.answer('stat', '-c', '%U %s', '/etc/tcp.smtp.d/tcp.smtp.cdb')).startsWith('auth-relay-gate 2'),
    )
    await machine.sh('rm -r /etc/systemd/system/auth-relay-wrap.service.d && systemctl daemon-reload')
  })

  test('the unit of the alerts delivers a mail through Postfix', async () => {
    showJournalOnFailure()
    await configure(
      {
        authd: ['syslog_listen = ["127.0.0.1:6514"]', DOVECOT],
        wrap: [POLICY],
        popup: ['listen = []'],
        alerts: ['mail_to = ["bob@localhost"]', 'mail_from = "alarms@localhost"'],
      },
      'authd',
      'wrap',
    )
    // The same unit runs the command that sends each rule once. bob has a mailbox in /var/mail.
    await machine.sh(`adduser --quiet --disabled-password --gecos '' bob
      directory=/etc/systemd/system/auth-relay-alerts.service.d
      mkdir -p $directory
      printf '%s\\n' [Service] Type=oneshot Restart=no WatchdogSec=0 ExecStart= \\
        'ExecStart=/usr/lib/auth-relay/bin/auth-relay alerts test --config /etc/auth-relay.toml' > $directory/test.conf
      systemctl daemon-reload && systemctl start auth-relay-alerts.service`)
    await eventually('the mail is delivered', async () =>
      (await machine.answer('cat', '/var/mail/bob')).includes('login_spread'),
    )
    await machine.sh('rm -r /etc/systemd/system/auth-relay-alerts.service.d && systemctl daemon-reload')
  })

  test('authd reads the journal with the drop-in file for it', async () => {
    showJournalOnFailure()
    await machine.sh('rm /etc/rsyslog.d/40-auth-relay-authd.conf && systemctl restart rsyslog.service')
    await dropIn('authd-journal')
    await configure({ authd: ['journal = true', DOVECOT], wrap: [POLICY], popup: ['listen = []'] }, 'authd', 'wrap')
    expect(await machine.answer('auth-relay', 'check')).toMatch(
      /^fine +authd.journal: auth-relay can read the journal$/m,
    )
    expect(
      await machine.sh(commandIn(sectionOfDocument('INSTALL', 'Log sources'), /^systemd-run .* journalctl /)),
    ).not.toBe('')
    await machine.sh(`
      postconf -F smtp/inet/chroot=y
      postconf -e 'smtpd_relay_restrictions = permit_mynetworks, check_policy_service { inet:127.0.0.1:10040, default_action=DUNNO }, reject_unauth_destination'
      systemctl restart postfix.service`)
    await host.opensRelay(host.newAddress(), 'pop3s')
  })

  test('authd follows mail.log with the drop-in file for it', async () => {
    showJournalOnFailure()
    await dropIn('authd-follow')
    const authd = ['follow_files = ["/var/log/mail.log"]', DOVECOT]
    await configure({ authd, wrap: [POLICY], popup: ['listen = []'] }, 'authd', 'wrap')
    expect(await machine.must('stat', '-c', '%a %G', '/var/log/mail.log')).toBe('640 adm')
    await host.opensRelay(host.newAddress(), 'pop3s')
  })

  test('authd follows a log file of Dovecot itself, with the rights of INSTALL', async () => {
    showJournalOnFailure()
    const log = '/var/log/dovecot.log'
    machine.write('/etc/dovecot/local.conf', `${dovecotMaildirs(release)}log_path = ${log}\n`)
    await machine.must('systemctl', 'restart', 'dovecot.service')
    await dropIn('authd-follow')
    await configure(
      { authd: [`follow_files = ["${log}"]`, DOVECOT], wrap: [POLICY], popup: ['listen = []'] },
      'authd',
      'wrap',
    )
    expect(await machine.must('stat', '-c', '%a %U', log)).toBe('600 root')
    expect(await machine.answer('auth-relay', 'check', '--quiet')).toContain(`cannot read ${log}: `)
    const command = commandIn(sectionOfDocument('INSTALL', 'Log sources'), /^chgrp adm FILE /)
    await machine.sh(command.replaceAll('FILE', log))
    expect(await machine.answer('auth-relay', 'check')).toMatch(
      /^fine +authd.follow_files: auth-relay can read \/var\/log\/dovecot\.log$/m,
    )
    await machine.must('systemctl', 'restart', 'auth-relay-authd.service')
    await host.opensRelay(host.newAddress(), 'pop3s')
    const tested = await machine.sh(`auth-relay test-line < ${log}`)
    expect(tested).not.toContain('not a syslog line')
    // After a rotation Dovecot writes a new file, which authd can read too.
    machine.write('/etc/logrotate.d/dovecot-log', blockOf(sectionOfDocument('INSTALL', 'Log sources'), '', log))
    await machine.sh('logrotate --force /etc/logrotate.d/dovecot-log')
    expect(await machine.must('stat', '-c', '%a %G', log)).toBe('640 adm')
    await host.opensRelay(host.newAddress(), 'pop3s')
    expect(tested).toMatch(/^ *\d+ +grant +192\.0\.2\.\d+ +ann +\(dovecot\), with follow_files$/m)
  })

  test('a secret that only root can read is passed by LoadCredential', async () => {
    showJournalOnFailure()
    await dropIn('credentials')
    await machine.sh('chown root:root /etc/auth-relay/dbpass && chmod 600 /etc/auth-relay/dbpass')
    await configure({ wrap: [POLICY], popup: ['listen = []'] }, 'authd', 'wrap')
    await eventually('authd reaches the database', async () =>
      (await machine.must('journalctl', '-o', 'cat', '-u', 'auth-relay-authd.service', '-n', '20')).includes(
        'state=up',
      ),
    )
    await machine.sh(`chown root:auth-relay /etc/auth-relay/dbpass && chmod 640 /etc/auth-relay/dbpass
      rm -r /etc/systemd/system/auth-relay-authd.service.d && systemctl daemon-reload`)
  })

  test('sslwrap on 995 before Dovecot, which receives the address of the client', async () => {
    showJournalOnFailure()
    machine.write('/etc/dovecot/local.conf', dovecotMaildirs(release) + DOVECOT_BEHIND_PROXY(release))
    await machine.must('systemctl', 'restart', 'dovecot.service')
    await dropIn('authd-follow')
    const lines: Lines = {
      authd: ['follow_files = ["/var/log/mail.log"]', DOVECOT],
      wrap: [POLICY],
      popup: ['listen = []'],
      '': ['[[sslwrap.listener]]', 'listen = "*:995"', 'backend = "127.0.0.1:1110"', 'preamble = "proxy-v2"'],
    }
    await configure(lines, 'authd', 'wrap', 'sslwrap')
    await host.opensRelay(host.newAddress(), 'pop3s')
    host.addAddress('2001:db8::8')
    await host.opensRelay('2001:db8::8', 'pop3s')
  })

  test('popup before Dovecot: the login is stored before the client reads +OK', async () => {
    showJournalOnFailure()
    machine.write(
      '/etc/dovecot/local.conf',
      dovecotMaildirs(release) + DOVECOT_BEHIND_PROXY(release).replaceAll('port = 110\n', 'port = 0\n'),
    )
    await machine.must('systemctl', 'restart', 'dovecot.service')
    const popup = ['checker = "upstream"', 'upstream = "127.0.0.1:1110"', 'upstream_proxy = true']
    await configure({ popup, wrap: [POLICY] }, 'authd', 'popup', 'sslwrap', 'wrap')
    await host.opensRelay(host.newAddress(), 'pop3')
    await host.opensRelay(host.newAddress(), 'pop3s')
  })

  test('haproxy with TLS before popup', async () => {
    showJournalOnFailure()
    await machine.must('systemctl', 'disable', '--now', '-q', 'dovecot.service')
    await machine.install('haproxy')
    await machine.sh(`cat /etc/ssl/certs/ssl-cert-snakeoil.pem /etc/ssl/private/ssl-cert-snakeoil.key > /etc/haproxy/pop3s.pem
      chmod 600 /etc/haproxy/pop3s.pem`)
    machine.write('/etc/haproxy/haproxy.cfg', HAPROXY)
    await machine.sh('echo sesame | auth-relay passwd ann')
    const popup = ['listen = ["*:110"]', 'proxy_listen = ["127.0.0.1:1111"]', 'proxy_trust = ["127.0.0.0/8"]']
    await configure({ popup, wrap: [POLICY] }, 'authd', 'popup', 'wrap')
    await machine.must('systemctl', 'restart', 'haproxy.service')
    await host.opensRelay(host.newAddress(), 'pop3s')
    host.addAddress('2001:db8::9')
    await host.opensRelay('2001:db8::9', 'pop3s')
    await machine.must('systemctl', 'disable', '--now', '-q', 'haproxy.service')
  })

  test('Exim queries the gate; authd reads the log of Courier', async () => {
    showJournalOnFailure()
    await machine.sh('apt-get purge -q -y dovecot-core postfix')
    await machine.install('courier-pop', 'exim4-daemon-light')
    machine.write('/var/tmp/acl', installBlock({ section: 'Exim', language: 'exim', marker: 'gate/query.sock' }, {}))
    await machine.sh(`${EXIM_SITE}\n${EXIM_INSERT_ACL}\nupdate-exim4.conf && systemctl restart exim4.service`)
    await dropIn('authd-journal')
    const wrap = ['query_listen = ["unix:/run/auth-relay/gate/query.sock"]']
    await configure(
      { authd: ['journal = true', 'check_daemon_courier = true'], wrap, popup: ['listen = []'] },
      'authd',
      'wrap',
    )
    await joinsGroup(documented(/^adduser Debian-exim .*$/m))
    // popup has released its port.
    await machine.must('systemctl', 'restart', 'courier-pop.service')
    await host.opensRelay(host.newAddress(), 'pop3')
  })
}

/** A line of INSTALL. */
function documented(line: RegExp): string {
  const found = line.exec(readFileSync(new URL('../../docs/INSTALL.md', import.meta.url), 'utf8'))
  if (found === null) throw new Error(`INSTALL has no line ${line}`)
  return found[0]
}

const DOVECOT_BEHIND_PROXY = (release: Release): string => `
haproxy_trusted_networks = 127.0.0.0/8${release === 'bookworm' ? '' : ' ::1/128'}
service pop3-login {
  inet_listener pop3 {
    port = 110
  }
  inet_listener pop3s {
    port = 0
  }
  inet_listener pop3_proxied {
    ${release === 'bookworm' ? 'address' : 'listen'} = 127.0.0.1
    port = 1110
    haproxy = yes
  }
}
`

const HAPROXY = `defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend pop3s
  bind :::995 v4v6 ssl crt /etc/haproxy/pop3s.pem
  default_backend popup
backend popup
  server popup 127.0.0.1:1111 send-proxy-v2
`
