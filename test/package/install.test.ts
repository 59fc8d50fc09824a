import { parse } from 'smol-toml'
import { afterAll, beforeAll, describe, expect, inject, onTestFailed, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { DEBIAN_MACHINE, type DebianMachine, RELEASES, type Release } from '../harness/hosts/debian-machine.ts'
import { blockOf, commandIn, type Section, sectionOfDocument, withSettings } from '../harness/hosts/document-steps.ts'
import { dovecotMaildirs, EXIM_INSERT_ACL, EXIM_SITE, MailHost, POSTFIX_SITE } from '../harness/hosts/mail-host.ts'
import { command, describeWith, NETWORK_NAMESPACES } from '../harness/runner/describe-with.ts'

// Follows the paths of INSTALL on a separate Debian. Every command, every setting and every line
// for other programs is read from the document and applied in its order. The test configures
// auth-relay in no other way. Other steps only prepare the host, which has a mail server before
// auth-relay is installed.

const SETTINGS = '/etc/auth-relay.toml'

const INSTALL = 'INSTALL'
const sectionOf = (heading: string, name = INSTALL): Section => sectionOfDocument(name, heading)

describe.each(RELEASES)('%s', release => {
  describeWith(
    [...DEBIAN_MACHINE, NETWORK_NAMESPACES, command('curl'), command('strip', 'binutils')],
    'the paths of INSTALL',
    () => {
      const reader = 'Log reader beside your POP3 server'
      describe(`${reader}, Postfix`, () => {
        const path = new Walk(release)
        path.prepares('Dovecot and Postfix, as Debian has them', () => path.hasPostfix())
        path.installs()
        path.writesFileFor('postfix', reader)
        path.starts(reader)
        path.sendsLogToAuthd(reader)
        path.setsUpPostfix()
        path.works('pop3s')
        path.tookTenMinutes()
      })

      describe(`${reader}, Exim`, () => {
        const path = new Walk(release)
        path.prepares('Dovecot and Exim, as Debian has them', () => path.hasExim())
        path.installs()
        path.writesFileFor('exim', reader)
        path.starts(reader)
        path.sendsLogToAuthd(reader)
        path.setsUpExim()
        path.works('pop3s')
        path.tookTenMinutes()
      })

      describe('popup in front of another POP3 server, Postfix', () => {
        const heading = 'popup in front of your POP3 server'
        const path = new Walk(release)
        path.prepares('Dovecot and Postfix, as Debian has them', () => path.hasPostfix())
        path.installs()
        path.movesDovecot(heading)
        path.changesSettings(heading)
        path.starts(heading)
        path.setsUpPostfix()
        path.works('pop3')
        path.walk('a login by POP3 over TLS opens the relay', async () =>
          path.host.opensRelay(path.host.newAddress(), 'pop3s'),
        )
        path.tookTenMinutes()
      })

      describe('Whole stack with Postfix, a copier', () => {
        const heading = 'Whole stack with Postfix'
        const path = new Walk(release)
        path.prepares('Postfix, as Debian has it, and no POP3 server', () => path.hasPostfixAlone())
        path.installs()
        path.writesFileFor('postfix-popup', heading)
        path.startsWithDevice(heading)
        path.setsUpPostfix()
        path.scans()
        path.tookTenMinutes()
      })

      describe('the whole stack with qmail', () => {
        const heading = 'Whole stack with qmail'
        const path = new Walk(release)
        // The settings of the document name a checkpassword program. One release has it.
        const hasChecker = release === 'bookworm'
        path.prepares(`qmail, ${hasChecker ? 'with' : 'without'} a checkpassword program`, () => path.hasQmail())
        if (hasChecker) path.prepares('a checkpassword program', () => path.hasCheckpassword())
        path.installs()
        path.writesFileFor('qmail', heading)
        if (!hasChecker) path.hasAccountsInPasswdFile(heading)
        path.startsQmailSmtpd(heading)
        path.starts(heading)
        const qmail = { storesMail: false }
        path.works('pop3', qmail)
        path.walk('a login by POP3 over TLS opens the relay', async () =>
          path.host.opensRelay(path.host.newAddress(), 'pop3s', qmail),
        )
        path.tookTenMinutes()
      })
    },
  )
})

const CHECKPASSWORD = `#!/usr/bin/perl
use POSIX;
open(my $credentials, '<&=3') or exit 2;
read($credentials, my $text, 513);
my ($login, $password) = split /\\0/, $text;
exit 1 unless $login eq 'ann' && $password eq 'sesame';
my ($uid, $gid, $home) = (getpwnam 'ann')[2, 3, 7];
$) = "$gid $gid";
POSIX::setgid($gid);
POSIX::setuid($uid);
chdir $home or exit 111;
@ENV{'USER', 'HOME'} = ('ann', $home);
exec @ARGV;
`

/** The password that `device add … --password` prints. */
function passwordIn(output: string): string {
  const [, password] = /^ {2}password: ([A-Za-z0-9]{20})$/m.exec(output) ?? []
  if (password === undefined) throw new Error(`no password in ${output}`)
  return password
}

/** A machine, and the steps of a path as tests in the order of the calls. */
class Walk {
  readonly #release: Release
  #host: MailHost | undefined
  /** Password of the copier. */
  #password = ''
  /** Milliseconds of the steps of the document. */
  #spent = 0

  constructor(release: Release) {
    this.#release = release
    beforeAll(async () => {
      this.#host = await MailHost.boot(release)
    }, 900_000)
    afterAll(() => this.#host?.stop(), 60_000)
  }

  get host(): MailHost {
    if (this.#host === undefined) throw new Error('the machine is not up')
    return this.#host
  }

  get #machine(): DebianMachine {
    return this.host.machine
  }

  /** A step of the document. */
  walk(name: string, step: () => Promise<unknown>): void {
    this.prepares(name, async () => {
      const before = performance.now()
      await step()
      this.#spent += performance.now() - before
    })
  }

  /** A step that makes the host on which the path begins. */
  prepares(name: string, step: () => Promise<unknown>): void {
    test(name, async () => {
      onTestFailed(async () => console.error(await this.host.journal()))
      await step()
    })
  }

  /** INSTALL says that each path takes about ten minutes. The packages come from a local mirror. */
  tookTenMinutes(): void {
    test('the commands and the test of the path take less than ten minutes together', () => {
      expect(this.#spent / 60_000).toBeGreaterThan(0)
      expect(this.#spent / 60_000).toBeLessThan(10)
    })
  }

  async hasPostfix(): Promise<void> {
    await this.#hasDovecot()
    await this.hasPostfixAlone()
  }

  async hasPostfixAlone(): Promise<void> {
    await this.#machine.install('postfix')
    await this.#machine.sh(`${POSTFIX_SITE}\nsystemctl restart postfix.service`)
  }

  async hasExim(): Promise<void> {
    await this.#hasDovecot()
    await this.#machine.install('exim4-daemon-light')
    await this.#machine.sh(`${EXIM_SITE}\nupdate-exim4.conf && systemctl restart exim4.service`)
  }

  async #hasDovecot(): Promise<void> {
    await this.#machine.install('dovecot-pop3d')
    this.#machine.write('/etc/dovecot/conf.d/99-mailboxes.conf', dovecotMaildirs(this.#release))
    await this.#machine.must('systemctl', 'restart', 'dovecot.service')
  }

  /**
   * Debian has no qmail, so a program replaces qmail-smtpd. The other files are those of a qmail
   * host.
   */
  async hasQmail(): Promise<void> {
    await this.#machine.sh(`
      adduser --quiet --system --group --no-create-home --home /nonexistent qmaild
      mkdir -p /var/qmail/bin /var/qmail/control /var/qmail/queue
      echo machine.example > /var/qmail/control/rcpthosts
      head -c 2048 /dev/zero > /etc/tcp.smtp.cdb`)
    this.#machine.copyIn(new URL('../harness/smtp/smtpd.sh', import.meta.url).pathname, '/var/qmail/bin/smtpd.sh')
    this.#machine.write('/var/qmail/bin/qmail-smtpd', '#!/bin/sh\nexec sh /var/qmail/bin/smtpd.sh machine.example\n')
    await this.#machine.must('chmod', '755', '/var/qmail/bin/qmail-smtpd', '/var/qmail/bin/smtpd.sh')
  }

  /** A program of the checkpassword interface for the account ann, in perl, which Debian has. */
  async hasCheckpassword(): Promise<void> {
    this.#machine.write('/bin/checkpassword', CHECKPASSWORD)
    await this.#machine.must('chmod', '755', '/bin/checkpassword')
  }

  /** Step 1, with the package that the tests have already built. */
  installs(): void {
    this.walk('the package is installed', async () => {
      const [first] = sectionOf('Log reader beside your POP3 server').blocks
      expect(first?.text.trimEnd().split('\n')).toEqual([
        'git clone REPOSITORY auth-relay && cd auth-relay',
        'npm ci && npm run package:deb && apt install ./packages/auth-relay_*.deb',
      ])
      this.#machine.copyIn(inject('debianPackage'), '/tmp/auth-relay.deb')
      await this.#machine.must('apt', 'install', '-y', '/tmp/auth-relay.deb')
    })
  }

  /** The settings file that init writes has the lines of the document. */
  writesFileFor(site: string, heading: string): void {
    this.walk(`auth-relay init --for ${site}`, async () => {
      const section = sectionOf(heading)
      // The document has one command and lists the names for other sites next to it.
      expect(commandIn(section, /^auth-relay init --for [\w-]+$/)).toMatch(/ (postfix|postfix-popup|qmail)$/)
      expect(section.text).toMatch(new RegExp(`(\`| --for )${site}\``))
      await this.#machine.sh(`auth-relay init --for ${site}`)
      const { configured, ...shown } = parse(blockOf(section, 'toml', '[wrap]'))
      expect(configured).toBe(true)
      const own = site === 'exim' ? parse(blockOf(sectionOf('Exim'), 'toml', '127.0.0.1')) : {}
      expect(parse(await this.#machine.must('cat', SETTINGS))).toMatchObject({ ...shown, ...own })
      await this.#machine.must('sed', '-i', 's/^configured = false$/configured = true/', SETTINGS)
    })
  }

  /** Changes the lines of the settings file that the document shows. */
  changesSettings(heading: string): void {
    this.walk('the settings', () => this.#change(blockOf(sectionOf(heading), 'toml', '[wrap]')))
  }

  async #change(lines: string): Promise<void> {
    const text = withSettings(await this.#machine.must('cat', SETTINGS), lines)
    this.#machine.write(SETTINGS, `${text}\n`)
    expect(parse(text)).toMatchObject(parse(lines))
  }

  movesDovecot(heading: string): void {
    this.walk('the POP3 server moves to port 1110', async () => {
      const section = sectionOf(heading)
      const names = ['`listen` for `address`', '`auth_allow_cleartext = yes` for `disable_plaintext_auth = no`']
      for (const words of names) expect(section.text).toContain(words)
      const [, path = '', lines = ''] =
        /^# (\/etc\/dovecot\/\S+)\n([\s\S]*)$/.exec(blockOf(section, '', 'haproxy')) ?? []
      const ofRelease =
        this.#release === 'bookworm'
          ? lines
          : lines.replace('address =', 'listen =').replace('disable_plaintext_auth = no', 'auth_allow_cleartext = yes')
      this.#machine.write(path, ofRelease)
      await this.#machine.sh(commandIn(section, /^systemctl restart dovecot$/))
    })
  }

  /** The checker for a host without a checkpassword program. */
  hasAccountsInPasswdFile(heading: string): void {
    this.walk('accounts in a passwd file', async () => {
      const section = sectionOf(heading)
      await this.#change(`[popup]\n${commandIn(section, /^checker = "passwd-file"$/)}`)
      await this.#machine.sh(`echo sesame | ${commandIn(section, /^auth-relay passwd \w+$/)}`)
    })
  }

  startsQmailSmtpd(heading: string): void {
    this.walk('the drop-in for qmail-smtpd', () =>
      this.#machine.sh(blockOf(sectionOf(heading), 'sh', '/auth-relay-wrap.service.d')),
    )
  }

  /** The database, the check and the start. */
  starts(heading: string): void {
    this.walk('the programs are started', async () => {
      const lines = blockOf(sectionOf(heading), 'sh', 'systemctl enable').trim().split('\n')
      expect(lines.slice(0, 2)).toEqual(['auth-relay-setup-database', 'auth-relay check'])
      for (const line of lines) await this.#machine.sh(line)
    })
  }

  /** As starts, with a device of which the document makes the login. */
  startsWithDevice(heading: string): void {
    this.walk('the programs are started, with the login of a device', async () => {
      const [database = '', device = '', check = '', start = '', ...others] = blockOf(
        sectionOf(heading),
        'sh',
        'systemctl enable',
      )
        .trim()
        .split('\n')
      expect([database, check, others]).toEqual(['auth-relay-setup-database', 'auth-relay check', []])
      await this.#machine.sh(database)
      this.#password = passwordIn(await this.#machine.sh(device))
      await this.#machine.sh(check)
      await this.#machine.sh(start)
    })
  }

  /** The copier of OPERATING, on the host of the path. */
  scans(): void {
    const section = sectionOf('Bind a copier to its mail', 'OPERATING')
    const address = '192.0.2.41'
    const account = () => `copier2@example.org:${this.#password}`
    const send = (sender: string, recipient = 'bob@partner.example') => this.host.mailFrom(address, sender, recipient)

    this.walk('the device of OPERATING, with a login that exists already', async () => {
      const add = blockOf(section, 'sh', 'device add')
      expect(add).toMatch(/^auth-relay device add copier-2 --login copier2@example\.org --password /)
      await this.#machine.sh('auth-relay device remove copier-2')
      this.#password = passwordIn(await this.#machine.sh(add))
      this.host.addAddress(address)
    })
    this.walk('a login opens the relay for its sender and its recipients', async () => {
      expect(await send('scan@example.org')).toMatchObject({ code: 554 })
      expect(await this.host.opensMailbox(address, 'pop3', account())).toBe(true)
      expect(await send('scan@example.org')).toMatchObject({ code: 250 })
      expect(await send('ceo@example.org')).toMatchObject({
        code: 550,
        text: expect.stringContaining(
          'device "copier-2" may not send as <ceo@example.org>; set its sender to scan@example.org',
        ),
      })
      expect(await send('scan@example.org', 'x@elsewhere.example')).toMatchObject({
        code: 550,
        text: expect.stringContaining('auth-relay device set copier-2 --to elsewhere.example'),
      })
      expect(await this.host.opensMailbox(address, 'pop3s', account())).toBe(true)
    })
    this.walk('explain, report, status and check agree', async () => {
      const [explain = ''] = blockOf(section, 'sh', 'auth-relay explain').split('\n')
      const output = await this.#machine.sh(explain)
      expect(output).toMatch(/^Mail from 192\.0\.2\.41 is relayed\.\n/)
      expect(output).toContain('Device: copier-2, sends as scan@example.org; to example.org, partner.example')
      expect(output).toMatch(/^ {2}Left at this gate: 5[89] of 60 messages an hour$/m)
      const other = await this.#machine.run('sh', '-c', explain.replace('scan@', 'ceo@'))
      expect(other.ending?.code).toBe(1)
      await eventually('the report counts the mail', async () =>
        /^copier2@example\.org +copier-2 .* sometimes +popup .* [1-9]\d* +sends-only/m.test(
          await this.#machine.must('env', 'COLUMNS=200', 'auth-relay', 'report'),
        ),
      )
      expect((await this.#machine.must('auth-relay', 'status')).split('\n').at(-1)).toBe('Nothing is wrong.')
      expect((await this.#machine.must('auth-relay', 'check', '--quiet')).split('\n').at(-1)).toBe('Safe.')
    })
    this.walk('from another network the login works and the relay stays closed', async () => {
      await this.#machine.sh('auth-relay device set copier-2 --from 192.0.2.41')
      const elsewhere = this.host.newAddress()
      expect(await this.host.opensMailbox(elsewhere, 'pop3', account())).toBe(true)
      expect(await this.host.recipientFrom(elsewhere)).toBe(554)
      const { lines, ending } = await this.#machine.run('auth-relay', 'explain', elsewhere)
      expect(ending?.code).toBe(1)
      expect(lines[0]).toBe(`Mail from ${elsewhere} is not relayed.`)
      expect(lines).toContain('  What to do: auth-relay device set copier-2 --from NETWORKS')
    })
  }

  sendsLogToAuthd(heading: string): void {
    this.walk('rsyslog sends the mail log to authd', async () => {
      const section = sectionOf(heading)
      const [, path = '', lines = ''] =
        /^# (\/etc\/rsyslog\.d\/\S+)\n([\s\S]*)$/.exec(blockOf(section, '', 'omfwd')) ?? []
      this.#machine.write(path, lines)
      await this.#machine.sh(commandIn(section, /^rsyslogd -N1 && systemctl restart rsyslog$/))
    })
  }

  /** The settings file already has the settings of the section. */
  setsUpPostfix(): void {
    this.walk('Postfix queries the gate', async () => {
      const section = sectionOf('Postfix')
      const lines = blockOf(section, 'postfix', 'inet:127.0.0.1:10040, default_action')
      expect(lines).toMatch(/^# \/etc\/postfix\/main\.cf\n/)
      expect(section.text).toContain('**replace** the line `smtpd_relay_restrictions`')
      const main = await this.#machine.must('cat', '/etc/postfix/main.cf')
      const replaced = main.replace(/^smtpd_relay_restrictions = .*(\n\s+.*)*$/m, () => lines.trimEnd())
      expect(replaced).not.toBe(main)
      this.#machine.write('/etc/postfix/main.cf', `${replaced}\n`)
      const [check = '', reload = ''] = blockOf(section, 'sh', 'postfix check').trim().split(' && ')
      expect(await this.#machine.sh(`${check} 2>&1`)).toBe('')
      expect(reload).toBe('systemctl reload postfix')
      // postfix.service of Debian 12 runs /bin/true as its reload, and the test's machine may no
      // longer have a control group for it. The instance of the unit does the real reload.
      await this.#machine.sh(`${reload} || systemctl reload postfix@-.service`)
    })
  }

  setsUpExim(): void {
    this.walk('Exim queries the gate', async () => {
      const section = sectionOf('Exim')
      expect(section.text).toContain('directly before `require message = relay not permitted`')
      this.#machine.write('/var/tmp/acl', blockOf(section, 'exim', 'readsocket{inet:'))
      await this.#machine.sh(`${EXIM_INSERT_ACL}\n${blockOf(section, 'sh', 'update-exim4.conf')}`)
    })
  }

  /** The last section: check has no finding about the running host, and a login opens the relay. */
  works(scheme: 'pop3' | 'pop3s', server: { readonly storesMail?: boolean } = {}): void {
    this.walk('check finds no fault, and a login opens the relay', async () => {
      const section = sectionOf('Does it work?')
      const check = blockOf(section, 'sh', 'auth-relay check').trimEnd()
      const explain = blockOf(section, 'sh', 'auth-relay explain').trimEnd()
      expect(check).toBe('auth-relay check --quiet')
      expect(section.text).toContain('The last line must be `Safe.`')
      expect((await this.#machine.sh(check)).split('\n').at(-1)).toBe('Safe.')
      const address = this.host.newAddress()
      await this.host.opensRelay(address, scheme, server)
      const output = await this.#machine.sh(explain.replace('192.0.2.7', address))
      expect(section.text).toContain('The first line must be `Mail from 192.0.2.7 is relayed.`')
      expect(output.split('\n')[0]).toBe(`Mail from ${address} is relayed.`)
    })
  }
}
