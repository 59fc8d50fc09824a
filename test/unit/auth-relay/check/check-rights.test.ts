import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkExim, checkPostfix, rulesOfExim } from '../../../../src/auth-relay/check/check-gate.ts'
import type { UnitFacts } from '../../../../src/auth-relay/check/check-rights.ts'
import { checkRights } from '../../../../src/auth-relay/check/check-rights.ts'
import type { Sandbox } from '../../../../src/auth-relay/check/sandbox.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { describeWith, ROOT } from '../../../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)
const settingsOf = (toml: string) => parseSettings(toml, 'x.toml').settings

describeWith([ROOT], 'rights of the accounts of programs, with injected units of systemd', () => {
  const user = 61_210
  const group = 61_290
  const noUnit = (): undefined => undefined
  beforeAll(() => chmodSync(path, 0o755))

  const findingsOf = (
    toml: string,
    unit: (name: string) => UnitFacts | undefined = noUnit,
    journals?: readonly string[],
  ) =>
    checkRights(settingsOf(toml), { script: '/nonexistent/auth-relay.js', unit, ...(journals && { journals }) }).map(
      ({ verdict, about, text, remedy = '' }) =>
        [`${verdict} ${about}: ${text.replaceAll(path, '')}`, remedy.replaceAll(path, '')].join(' | '),
    )
  /** The account `daemon` of the host with one more group, in place of the package's account. */
  const daemonUnit =
    (groups: readonly number[] = []) =>
    (): UnitFacts => ({ user: 'daemon', groups, procSubset: 'all' })

  test('a FIFO of root that the account of authd cannot open', () => {
    const fifo = `${path}/fifo`
    execFileSync('mkfifo', ['-m', '600', fifo])
    const toml = `[authd]\nuser = "${user}"\nsyslog_fifo = "${fifo}"`
    expect(findingsOf(toml)).toEqual([
      `unsafe authd.syslog_fifo: ${user} (uid ${user}) cannot read and write /fifo: authd does not start | chown ${user} /fifo`,
    ])
    chownSync(fifo, user, user)
    expect(findingsOf(toml)).toEqual([])
  })

  test('with the injected unit of authd: a followed file of mode 0600, of a group, and one that is missing', () => {
    const log = `${path}/mail.log`
    writeFileSync(log, '')
    chmodSync(log, 0o600)
    const toml = `[authd]\nfollow_files = ["${log}"]`
    expect(findingsOf(toml, daemonUnit())).toEqual([
      expect.stringMatching(/^unsafe authd.follow_files: daemon \(uid 1\) cannot read \/mail\.log: .* \| .*setfacl/),
    ])
    chownSync(log, 0, group)
    chmodSync(log, 0o640)
    expect(findingsOf(toml, daemonUnit())).toEqual([
      expect.stringMatching(new RegExp(`^unsafe authd.follow_files: .* SupplementaryGroups=${group}$`)),
    ])
    expect(findingsOf(toml, daemonUnit([group]))).toEqual(['fine authd.follow_files: daemon can read /mail.log | '])
    expect(findingsOf(`[authd]\nfollow_files = ["${path}/none"]`, daemonUnit())).toEqual([
      expect.stringMatching(/^advice authd.follow_files: \/none does not exist/),
    ])
  })

  test('a followed file that every account may read, below a directory that the account may not enter', () => {
    const directory = `${path}/closed`
    mkdirSync(`${directory}/inner`, { recursive: true })
    writeFileSync(`${directory}/inner/pop3.log`, '', { mode: 0o644 })
    chmodSync(directory, 0o700)
    const toml = `[authd]\nuser = "${user}"\nfollow_files = ["${directory}/inner/pop3.log"]`
    expect(findingsOf(toml)).toEqual([
      `unsafe authd.follow_files: ${user} (uid ${user}) may not enter /closed, so it cannot read /closed/inner/pop3.log: nothing is granted from it | setfacl -m u:${user}:x /closed, or let the daemon write its file elsewhere`,
    ])
    chmodSync(directory, 0o711)
    expect(findingsOf(toml)).toEqual([expect.stringMatching(/^fine authd.follow_files: /)])
  })

  test('if the kernel cannot be queried as the account, nothing is called unsafe', () => {
    const log = `${path}/open.log`
    const fifo = `${path}/open.fifo`
    writeFileSync(log, '')
    chmodSync(log, 0o644)
    execFileSync('mkfifo', ['-m', '600', fifo])
    chownSync(fifo, user, user)
    const tools = process.env['PATH']
    try {
      // A host without setpriv(1).
      process.env['PATH'] = `${path}/empty`
      expect(findingsOf(`[authd]\nuser = "${user}"\nfollow_files = ["${log}"]\nsyslog_fifo = "${fifo}"`)).toEqual([
        `advice authd.syslog_fifo: /open.fifo could not be tested as ${user} (uid ${user}): spawnSync setpriv ENOENT | run auth-relay check again`,
        `advice authd.follow_files: /open.log could not be tested as ${user} (uid ${user}): spawnSync setpriv ENOENT | run auth-relay check again`,
      ])
      // A host that cannot start another program.
      mkdirSync(`${path}/tools`)
      writeFileSync(`${path}/tools/setpriv`, '#!/bin/sh\necho Resource temporarily unavailable >&2\nexit 126\n', {
        mode: 0o755,
      })
      process.env['PATH'] = `${path}/tools`
      expect(findingsOf(`[authd]\nuser = "${user}"\nfollow_files = ["${log}"]`)).toEqual([
        expect.stringMatching(/^advice authd.follow_files: .*: Resource temporarily unavailable \| /),
      ])
    } finally {
      process.env['PATH'] = tools
    }
    expect(findingsOf(`[authd]\nuser = "${user}"\nfollow_files = ["${log}"]`)).toEqual([
      expect.stringMatching(/^fine authd.follow_files: /),
    ])
  })

  test('with the injected unit of authd and directories of the journal: hidden by the unit, missing, closed, open', () => {
    const journal = `${path}/journal`
    const file = `${journal}/0123/system.journal`
    mkdirSync(`${journal}/0123`, { recursive: true })
    const toml = '[authd]\njournal = true'
    const journalFindings = (unit: () => UnitFacts) => findingsOf(toml, unit, [journal])
    expect(journalFindings(daemonUnit())).toEqual([
      expect.stringMatching(/^unsafe authd.journal: this host keeps no journal/),
    ])
    writeFileSync(file, '')
    chownSync(file, 0, group)
    chmodSync(file, 0o640)
    expect(journalFindings(daemonUnit())).toEqual([
      expect.stringMatching(/^unsafe .* SupplementaryGroups=systemd-journal$/),
    ])
    expect(journalFindings(daemonUnit([group]))).toEqual(['fine authd.journal: daemon can read the journal | '])
    const hidden = (groups: readonly number[]) => (): UnitFacts => ({ ...daemonUnit(groups)(), procSubset: 'pid' })
    expect(journalFindings(hidden([group]))).toEqual([expect.stringMatching(/ \[Service\]: ProcSubset=all$/)])
    // With both changes check finds nothing more, and the drop-in of the package has the same
    // lines.
    const dropIn = readFileSync(new URL('../../../../deploy/systemd/authd-journal.conf', import.meta.url), 'utf8')
    const lines = dropIn.split('\n').filter(line => /^\w+=/.test(line))
    expect(journalFindings(hidden([]))).toEqual([
      expect.stringMatching(
        new RegExp(`^unsafe .*cannot read .*hides .* \\[Service\\]: ${lines.join(' and, on a separate line, ')}$`),
      ),
    ])
  })

  /** The options of a unit for the file system. */
  const sandboxed =
    (sandbox: Partial<Sandbox>) =>
    (name: string): UnitFacts => ({
      ...daemonUnit()(),
      sandbox: {
        ...{
          unit: name.replace('.service', ''),
          protectSystem: 'no',
          protectHome: 'no',
          privateTmp: 'no',
          writable: [],
        },
        ...sandbox,
      },
    })

  test('a followed file and a FIFO that the unit of authd hides', () => {
    const log = `${path}/hidden.log`
    const fifo = `${path}/hidden.fifo`
    writeFileSync(log, '')
    chmodSync(log, 0o644)
    execFileSync('mkfifo', ['-m', '666', fifo])
    const toml = `[authd]\nuser = "${user}"\nfollow_files = ["${log}", "/home/dovecot/pop3.log"]\nsyslog_fifo = "${fifo}"`
    expect(findingsOf(toml, sandboxed({ privateTmp: 'yes', protectHome: 'yes' }))).toEqual([
      'unsafe authd.syslog_fifo: PrivateTmp=yes of the unit auth-relay-authd hides it: /hidden.fifo: authd does not start | systemctl edit auth-relay-authd, and write under [Service]: PrivateTmp=no',
      'unsafe authd.follow_files: PrivateTmp=yes of the unit auth-relay-authd hides it: /hidden.log: nothing is granted from it | systemctl edit auth-relay-authd, and write under [Service]: PrivateTmp=no',
      'unsafe authd.follow_files: ProtectHome=yes of the unit auth-relay-authd hides it: /home/dovecot/pop3.log: nothing is granted from it | systemctl edit auth-relay-authd, and write under [Service]: ProtectHome=read-only',
    ])
    // A FIFO can be written on a read-only file system.
    expect(findingsOf(toml, sandboxed({ protectSystem: 'strict', protectHome: 'read-only' }))).toEqual([
      expect.stringMatching(/^fine authd.follow_files: .*hidden.log/),
      expect.stringMatching(/^advice authd.follow_files: .* does not exist/),
    ])
  })

  test('with the injected unit of the status page: its socket directory', () => {
    const directory = `${path}/page`
    mkdirSync(directory)
    const toml = `[status-page]\nlisten = "unix:${directory}/page.sock"`
    expect(findingsOf(toml, daemonUnit())).toEqual([
      'unsafe status-page.listen: daemon cannot make /page/page.sock: the unit of the status page does not start | name a socket in /run/auth-relay/status, or: install -d -o daemon /page',
    ])
    chownSync(directory, 1, 1)
    expect(findingsOf(toml, daemonUnit())).toEqual([])
    expect(findingsOf(toml, sandboxed({ protectSystem: 'strict' }))).toEqual([
      expect.stringMatching(
        /^unsafe status-page.listen: ProtectSystem=strict of the unit auth-relay-status-page makes it read-only: \/page: .* \| name a socket in .*: ReadWritePaths=\/page$/,
      ),
    ])
    expect(findingsOf(toml, sandboxed({ protectSystem: 'strict', writable: [path] }))).toEqual([])
  })

  test('with the injected unit of the gate: a socket directory of root', () => {
    const directory = `${path}/run`
    mkdirSync(directory)
    const toml = `[wrap]\npolicy_listen = ["unix:${directory}/policy.sock"]`
    expect(findingsOf(toml)).toEqual([])
    expect(findingsOf(toml, daemonUnit())).toEqual([
      expect.stringMatching(
        /^unsafe wrap.policy_listen: daemon cannot make \/run\/policy.sock: .* \| .*install -d -o daemon/,
      ),
    ])
    chownSync(directory, 1, 1)
    expect(findingsOf(toml, daemonUnit())).toEqual([])
  })
})

test('a Postfix in a chroot that cannot reach the socket that its main.cf names', async () => {
  const etc = `${path}/postfix`
  const queue = `${path}/spool`
  mkdirSync(etc)
  mkdirSync(queue)
  const write = (chroot: string, socket: string, service = 'smtp      inet  n  '): void => {
    writeFileSync(
      `${etc}/main.cf`,
      `queue_directory = ${queue}\nsmtpd_relay_restrictions = permit_mynetworks,\n  check_policy_service { unix:${socket}, default_action=DUNNO }\n`,
    )
    writeFileSync(`${etc}/master.cf`, `# service\n${service}     -       ${chroot}       -       -       smtpd\n`)
  }
  const findingsOf = (socket: string) =>
    checkPostfix(settingsOf(`[wrap]\npolicy_listen = ["unix:${socket}"]`), etc).map(({ verdict }) => verdict)
  const outside = `${path}/policy.sock`
  write('y', outside)
  expect(findingsOf(outside)).toEqual(['unsafe'])
  expect(findingsOf(`${path}/other.sock`)).toEqual([])
  write('n', outside)
  expect(findingsOf(outside)).toEqual([])
  // The smtpd behind postscreen.
  write('y', outside, 'smtpd     pass  -  ')
  expect(findingsOf(outside)).toEqual(['unsafe'])
  // In the chroot the name of the queue directory leads to a directory below it.
  mkdirSync(`${queue}/auth-relay`)
  const inside = `${queue}/auth-relay/policy.sock`
  const gate = createServer().listen(inside)
  await new Promise(resolve => gate.once('listening', resolve))
  write('y', inside)
  expect(checkPostfix(settingsOf(`[wrap]\npolicy_listen = ["unix:${inside}"]`), etc)).toEqual([
    expect.objectContaining({
      verdict: 'unsafe',
      remedy: expect.stringContaining('write unix:auth-relay/policy.sock in main.cf'),
    }),
  ])
  write('y', 'auth-relay/policy.sock')
  chmodSync(inside, 0o666)
  expect(findingsOf(inside)).toEqual(['fine'])
  await new Promise(resolve => gate.close(resolve))
  // For the smtpd a socket at the same path below the chroot is the right one.
  write('y', '/p.sock')
  const server = createServer().listen(`${queue}/p.sock`)
  await new Promise(resolve => server.once('listening', resolve))
  expect(findingsOf('/p.sock')).toEqual(['fine'])
  await new Promise(resolve => server.close(resolve))
})

describeWith([ROOT], 'the account of a mail server at a socket of the gate', () => {
  const socket = `${path}/asked.sock`
  const toml = `[wrap]\npolicy_listen = ["unix:${socket}"]\nquery_listen = ["unix:${socket}"]`
  const server = createServer()
  beforeAll(() => new Promise<void>(resolve => server.listen(socket, resolve)))
  afterAll(() => new Promise(resolve => server.close(resolve)))

  // `daemon` replaces the account of the mail server, and group 2 is `bin`.
  test.each([
    ['Postfix', 'policy_listen', 'postfix'],
    ['Exim', 'query_listen', 'exim4'],
  ])('%s lacks a group: the remedy names it', (name, setting, unit) => {
    writeFileSync(
      `${path}/main.cf`,
      `mail_owner = daemon\nsmtpd_relay_restrictions = check_policy_service unix:${socket}\n`,
    )
    writeFileSync(
      `${path}/exim.conf`,
      `accept condition = \${if match{\${readsocket{${socket}}{relay sender_encoded=s recipient_encoded=r instance=$acl_m_instance}{3s}{}{unknown}}}{^yes }}\n`,
    )
    const configuration = `${path}/exim.conf`
    const found = () =>
      (name === 'Exim'
        ? checkExim(settingsOf(toml), { configuration, account: 'daemon' })
        : checkPostfix(settingsOf(toml), path)
      ).filter(({ about }) => about === `wrap.${setting}`)
    chownSync(socket, 0, 2)
    chmodSync(socket, 0o660)
    expect(found()).toEqual([
      {
        verdict: 'unsafe',
        about: `wrap.${setting}`,
        text: `the account daemon may not connect to ${socket}, so the mail server gets no answer and the relay stays closed`,
        remedy: `adduser daemon bin && systemctl restart ${unit}`,
      },
    ])
    chownSync(socket, 0, 1)
    expect(found()).toEqual([])
    chownSync(socket, 0, 2)
    chmodSync(socket, 0o666)
    expect(found()).toEqual([])
  })
})

describe('a query of Exim', () => {
  const configuration = `${path}/exim-old.conf`
  const settings = settingsOf('[wrap]\nquery_listen = ["127.0.0.1:10042", "unix:/nonexistent/q.sock"]')
  const QUERY = 'relay v=1 ip=x sender_encoded=s recipient_encoded=r instance=$acl_m_instance\\n'
  const write = (...asks: readonly string[]): void =>
    writeFileSync(
      configuration,
      asks.map(ask => `accept condition = \${if match{\${${ask}{3s}{}{unknown}}}{^yes }}\n`).join(''),
    )
  const found = (...asks: readonly string[]) => {
    write(...asks)
    return checkExim(settings, { configuration, account: 'daemon' }).map(finding => {
      expect([finding.verdict, finding.about]).toEqual(['advice', 'wrap.query_listen'])
      return finding.text
    })
  }
  const SENDERS =
    'the query of Exim does not name the sender, so that no rule for senders of a device or of [wrap] holds there'
  const DOMAINS =
    'the query of Exim does not name the recipient, so that no rule for recipient domains of a device or of [wrap] holds there'
  const LIMITS = 'the query of Exim does not name the message, so that no limit of a device or of [wrap] holds there'

  test.each([
    ['', [SENDERS, DOMAINS, LIMITS], []],
    [' instance=$acl_m_instance', [SENDERS, DOMAINS], ['limits']],
    [' sender_encoded=s recipient_encoded=r', [LIMITS], ['senders', 'recipient domains']],
    [' recipient_encoded=r instance=i', [SENDERS], ['recipient domains', 'limits']],
    [' sender_encoded=s \\\n  recipient_encoded=r instance=i', [], ['senders', 'recipient domains', 'limits']],
  ])('with %j: the advice names the rules that do not apply', (parts, advices, rules) => {
    for (const socket of ['inet:127.0.0.1:10042', '/nonexistent/q.sock']) {
      expect(found(`readsocket{${socket}}{relay v=1 ip=x${parts}\\n}`)).toEqual(advices)
      expect([...rulesOfExim(settings.wrap, configuration)]).toEqual(rules)
    }
  })

  test('of two, each one must name everything', () => {
    const complete = `readsocket{inet:127.0.0.1:10042}{${QUERY}}`
    expect(found(complete, complete)).toEqual([])
    expect(found(complete, 'readsocket{inet:127.0.0.1:10042}{relay v=1 ip=x instance=i\\n}')).toEqual([
      SENDERS,
      DOMAINS,
    ])
  })

  test('at another socket is not of the gate, and without Exim no rule is enforced', () => {
    expect(found('readsocket{inet:127.0.0.1:9}{relay v=1 ip=x\\n}')).toEqual([])
    expect(rulesOfExim(settings.wrap, configuration)).toEqual(new Set())
    expect(rulesOfExim(settings.wrap, `${path}/none`)).toEqual(new Set())
    expect(rulesOfExim(settingsOf('').wrap, configuration)).toEqual(new Set())
  })
})
