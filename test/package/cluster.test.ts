import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parse } from 'smol-toml'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, inject, onTestFailed, test } from 'vitest'
import { Watchdog } from '../cluster/watchdog.ts'
import { eventually } from '../harness/eventually.ts'
import { DEBIAN_MACHINE, DebianMachine, RELEASES, type Release } from '../harness/hosts/debian-machine.ts'
import { blockOf, commandIn, sectionOfDocument, withSettings } from '../harness/hosts/document-steps.ts'
import { type NetworkNamespace, TestNetwork } from '../harness/hosts/network-namespace.ts'
import { run } from '../harness/processes/program.ts'
import { command, describeWith, NETWORK_NAMESPACES } from '../harness/runner/describe-with.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

// Follows CLUSTER from empty hosts to the removal of the cluster. Each host is a separate Debian,
// and the test reads every command from the document. Two parts differ: a FIFO and Patroni's driver
// `testing` replace the kernel module of the watchdog, and the test itself copies files to hosts.

/** The addresses of the document. */
const ADDRESSES = {
  db1: '192.0.2.11',
  db2: '192.0.2.12',
  db3: '192.0.2.13',
  db4: '192.0.2.14',
  pop1: '192.0.2.17',
  pop2: '192.0.2.18',
  smtp1: '192.0.2.33',
  /** The server without a cluster, at the end. */
  single: '192.0.2.15',
} as const
type HostName = keyof typeof ADDRESSES
const FIRST_DATABASES = ['db1', 'db2', 'db3'] as const
const MAIL_HOSTS = ['pop1', 'pop2', 'smtp1'] as const

const SETTINGS = '/etc/auth-relay.toml'
/** Where the commands of the administrator run. The account of apt cannot read below /root. */
const WORKING_DIRECTORY = '/var/tmp'
const PACKAGE = `${WORKING_DIRECTORY}/auth-relay_1.deb`
/** The longest wait for the cluster: a failover, or a copy of the database, on a busy machine. */
const SETTLES = 240_000

const PATH_OF_CLUSTER = 'From empty hosts to a running cluster'
const block = (heading: string, marker: string, language = 'sh'): string =>
  blockOf(sectionOfDocument('CLUSTER', heading), language, marker)
const stepOf = (marker: string): string => block(PATH_OF_CLUSTER, marker)
const linesOf = (text: string): readonly string[] => text.trimEnd().split('\n')
const migration = (): string => linesOf(stepOf('auth-relay migrate'))[0] ?? ''
const sentence = (heading: string, pattern: RegExp): string => commandIn(sectionOfDocument('CLUSTER', heading), pattern)
const deployed = (name: string): string =>
  readFileSync(new URL(`../../deploy/patroni/${name}`, import.meta.url), 'utf8')

const Members = v.array(v.object({ Member: v.string(), Role: v.string(), State: v.string() }))

/** A host: its network, its machine, and the disk that a new boot finds again. */
class ClusterHost {
  readonly name: HostName
  readonly ip: string
  readonly #release: Release
  readonly #network: NetworkNamespace
  readonly #directory = temporaryDirectory()
  #machine: DebianMachine | undefined
  #watchdog: Watchdog | undefined
  /** The watchdog ran out, which resets a real host: Patroni hung. */
  wasReset = false

  constructor(network: TestNetwork, name: HostName, release: Release) {
    this.name = name
    this.ip = ADDRESSES[name]
    this.#release = release
    this.#network = network.client(this.ip)
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', this.#directory.path])
  }

  async boot(): Promise<void> {
    this.#link('up')
    const options = { name: this.name, disk: this.#directory.path }
    this.#machine = await DebianMachine.boot(this.#network, this.#release, options)
    this.#machine.write('/etc/apt/apt.conf.d/90tests', 'APT::Get::Assume-Yes "true";\n')
    if (this.name.startsWith('db')) {
      const device = this.#machine.path('/dev/watchdog')
      this.#watchdog = new Watchdog(device, () => {
        this.wasReset = true
      })
      await this.sh('getent passwd postgres >/dev/null && chown postgres /dev/watchdog')
    }
  }

  get isUp(): boolean {
    return this.#machine !== undefined
  }

  get machine(): DebianMachine {
    if (this.#machine === undefined) throw new Error(`${this.name} is not up`)
    return this.#machine
  }

  sh(script: string): Promise<string> {
    return this.machine.sh(`export HOME=/root\ncd ${WORKING_DIRECTORY}\n${script}`)
  }

  /** The output of a statement of the database's superuser. */
  psql(statement: string): Promise<string> {
    return this.sh(`cd / && runuser -u postgres -- psql -XAtqc "${statement}" pop3authd`)
  }

  /**
   * Fails like a host without power. The network ends first, so that no ending process can send.
   */
  async fail(): Promise<void> {
    this.#watchdog?.close()
    this.#link('down')
    const machine = this.#machine
    this.#machine = undefined
    await machine?.stop()
  }

  #link(state: 'up' | 'down'): void {
    execFileSync('ip', ['-n', this.#network.name, 'link', 'set', 'eth0', state])
  }

  async remove(): Promise<void> {
    await this.fail()
    execFileSync('umount', ['-l', this.#directory.path])
    this.#directory.remove()
  }
}

/** All hosts, and their clients. */
class Site {
  readonly release: Release
  readonly hosts: ReadonlyMap<HostName, ClusterHost>
  readonly #network = new TestNetwork('192.0.2.1')
  readonly #client: NetworkNamespace
  #clients = 200

  private constructor(release: Release) {
    this.release = release
    this.#client = this.#network.client('192.0.2.200')
    const names: readonly HostName[] = [...FIRST_DATABASES, 'db4', ...MAIL_HOSTS, 'single']
    this.hosts = new Map(names.map(name => [name, new ClusterHost(this.#network, name, release)]))
  }

  static async boot(release: Release): Promise<Site> {
    const site = new Site(release)
    for (const name of [...FIRST_DATABASES, ...MAIL_HOSTS]) await site.host(name).boot()
    return site
  }

  async remove(): Promise<void> {
    for (const host of this.hosts.values()) await host.remove()
    this.#network.remove()
  }

  host(name: HostName): ClusterHost {
    const host = this.hosts.get(name)
    if (host === undefined) throw new Error(`there is no ${name}`)
    return host
  }

  /** Database hosts that run. */
  get databases(): readonly ClusterHost[] {
    return [...this.hosts.values()].filter(({ name, isUp }) => name.startsWith('db') && isUp)
  }

  /** The members of the cluster, by a host, by default the first that runs. */
  async members(on = this.databases[0]): Promise<v.InferOutput<typeof Members>> {
    if (on === undefined) throw new Error('no database host runs')
    return v.parse(Members, JSON.parse(await on.sh('patronictl list -f json 2>/dev/null')))
  }

  /** Waits for exactly these members, one of them the leader, one the synchronous standby. */
  settled(...names: readonly HostName[]): Promise<HostName> {
    return eventually(
      `${names.join(', ')} are a cluster`,
      async () => {
        const members = await this.members()
        const isWhole =
          members.map(({ Member }) => Member).join() === names.join() &&
          members.every(({ State }) => /^(running|streaming)$/.test(State)) &&
          members.filter(({ Role }) => Role === 'Sync Standby').length === 1
        const leader = members.find(({ Role }) => Role === 'Leader')?.Member
        return isWhole && names.find(name => name === leader)
      },
      SETTLES,
      500,
    )
  }

  async leader(): Promise<ClusterHost> {
    const name = (await this.members()).find(({ Role }) => Role === 'Leader')?.Member
    const host = this.databases.find(each => each.name === name)
    if (host === undefined) throw new Error(`the leader is ${name}`)
    return host
  }

  newAddress(): string {
    this.#clients += 1
    const address = `192.0.2.${this.#clients}`
    this.#client.addAddress(address)
    return address
  }

  /** Opens the mailbox of ann at a POP3 host; true if the server accepted the login. */
  async logsIn(from: string, at: 'pop1' | 'pop2'): Promise<boolean> {
    const words = ['curl', '-s', '-m', '60', '--interface', from, `pop3://${ADDRESSES[at]}/`, '-u', 'ann:sesame']
    return (await run(words, { prefix: this.#client.prefix })).ending?.code === 0
  }

  /** Reply code of the SMTP host to a recipient of another domain. */
  async recipientFrom(from: string): Promise<number> {
    const smtp = SmtpConversation.over(this.#client.connect({ host: ADDRESSES.smtp1, port: 25, from }))
    const { code } = await smtp.askFor('somebody@elsewhere.example')
    await smtp.quit()
    return code
  }

  mayRelay(from: string, deadlineMs = SETTLES): Promise<true> {
    return eventually(
      `${from} may relay`,
      async () => (await this.recipientFrom(from)) === 250 && (true as const),
      deadlineMs,
      500,
    )
  }

  /** Logs in at a POP3 host, and waits until the relay at the SMTP host is open. */
  async opensRelay(at: 'pop1' | 'pop2'): Promise<string> {
    const address = this.newAddress()
    expect(await this.recipientFrom(address)).toBe(554)
    expect(await this.logsIn(address, at)).toBe(true)
    await this.mayRelay(address)
    return address
  }

  async journals(): Promise<string> {
    const parts: string[] = []
    for (const { name, isUp, machine } of [...this.hosts.values()].filter(host => host.isUp)) {
      if (!isUp) continue
      parts.push(`== ${name}`, await machine.answer('journalctl', '--no-pager', '-o', 'short', '-n', '40'))
    }
    return parts.join('\n')
  }
}

/**
 * A file of deploy/patroni for a host. Only lines that the file marks with CHANGE, in the line or
 * in the comment above it, may differ.
 */
function changed(name: 'etcd' | 'patroni.yml', host: ClusterHost, release: Release): string {
  const before = deployed(name).split('\n')
  const after = before.map(line => {
    if (release === 'trixie' && line.startsWith('ETCD_ENABLE_V2=')) return undefined
    if (release === 'trixie' && line === 'etcd:') return 'etcd3:'
    const text = line
      .replace(/^(ETCD_NAME=|name: )db1/, `$1${host.name}`)
      .replace(/(: )CHANGE-(\w+)/, '$1$2 of this test')
      .replace('/postgresql/15/', release === 'trixie' ? '/postgresql/17/' : '/postgresql/15/')
    // The same line on each host.
    return /^ETCD_INITIAL_CLUSTER=|^ +- /.test(line) ? text : text.replaceAll(ADDRESSES.db1, host.ip)
  })
  for (const [index, line] of before.entries()) {
    if (after[index] === line || line.includes('CHANGE')) continue
    const above = before.slice(0, index).reverse()
    const comment = above.slice(above.findIndex(each => /^\s*#/.test(each)))
    const end = comment.findIndex(each => !/^\s*#/.test(each))
    expect(comment.slice(0, end).join('\n'), `${name}: the line ${line} is not marked`).toContain('CHANGE')
  }
  return after.filter(line => line !== undefined).join('\n')
}

/** The stand-in for the kernel's watchdog. */
const withTestingWatchdog = (yaml: string): string => {
  const found = yaml.replace('\n  mode: required\n', '\n  mode: required\n  driver: testing\n')
  expect(found).not.toBe(yaml)
  return found
}

describe.each(RELEASES)('%s', release => {
  describeWith(
    [...DEBIAN_MACHINE, NETWORK_NAMESPACES, command('curl'), command('strip', 'binutils')],
    'the path of CLUSTER',
    () => walk(release),
  )
})

function walk(release: Release): void {
  let site: Site
  /** An address whose grant is older than every fault. */
  let early: string

  beforeAll(async () => {
    site = await Site.boot(release)
  }, 1_200_000)
  afterAll(() => site?.remove(), 120_000)

  function step(name: string, body: () => Promise<void>): void {
    test(name, async () => {
      onTestFailed(async () => console.error(await site.journals()))
      await body()
      expect([...site.hosts.values()].filter(({ wasReset }) => wasReset)).toEqual([])
    }, 900_000)
  }

  const on = async (names: readonly HostName[], body: (host: ClusterHost) => Promise<unknown>): Promise<void> => {
    await Promise.all(names.map(name => body(site.host(name))))
  }

  /** authd and the gate, stopped or started on every host. */
  async function programs(word: 'stop' | 'start'): Promise<void> {
    const [authd = '', wrap = '', ...others] = linesOf(block('Back up', `systemctl ${word} `))
    expect(others).toEqual([])
    await on(['pop1', 'pop2'], host => host.sh(authd))
    await on(['smtp1'], host => host.sh(wrap))
  }

  async function installDatabase(host: ClusterHost): Promise<void> {
    const packages = stepOf('apt-get install patroni')
    await host.sh(release === 'bookworm' ? packages : packages.replace('--stop 15 ', '--stop 17 '))
    // Lines for the kernel of a real host; the test's machines have the kernel of this one.
    const lines = linesOf(stepOf('modprobe'))
    expect(lines.filter(line => !line.startsWith('echo '))).toEqual([
      'modprobe softdog',
      'udevadm control --reload && udevadm trigger /dev/watchdog',
    ])
    for (const line of lines.filter(each => each.startsWith('echo '))) {
      await host.sh(line.replace(/^(.* > (\S+)\/[^/]+)$/, 'mkdir -p $2 && $1'))
    }
  }

  async function startsPatroni(host: ClusterHost, yaml = changed('patroni.yml', host, release)): Promise<void> {
    const [owner = '', link = '', start = '', list = '', ...others] = linesOf(stepOf('patronictl list'))
    expect(others).toEqual([])
    host.machine.write('/etc/patroni/config.yml', withTestingWatchdog(yaml))
    await host.sh(`${owner}\n${link}\n${start}`)
    await eventually(`patronictl answers on ${host.name}`, () => host.sh(list), SETTLES, 500)
  }

  /** A user, a mail server, and the package. */
  async function installsPackage(host: ClusterHost): Promise<void> {
    await host.sh(`useradd --create-home --shell /bin/sh ann
      install -d -o ann /home/ann/Maildir /home/ann/Maildir/new /home/ann/Maildir/cur /home/ann/Maildir/tmp`)
    host.machine.copyIn(inject('debianPackage'), PACKAGE)
    const [install = '', ...others] = linesOf(stepOf('auth-relay init'))
    expect(others).toHaveLength(1)
    await host.sh(install)
  }

  const givesLogin = (host: ClusterHost): Promise<string> => host.sh('echo sesame | auth-relay passwd ann')

  describe(PATH_OF_CLUSTER, () => {
    step('1, 2: packages, watchdog', async () => {
      await on(FIRST_DATABASES, installDatabase)
    })

    step('3: etcd', async () => {
      await on(FIRST_DATABASES, async host => {
        host.machine.write('/etc/default/etcd', changed('etcd', host, release))
        await host.sh(stepOf('systemctl enable etcd'))
      })
      const healthy = () => site.host('db2').sh(`${stepOf('endpoint health')} 2>&1`)
      const printed = await eventually('etcd runs on three hosts', healthy, SETTLES, 500)
      expect(printed.match(/is healthy: .* took = /g)).toHaveLength(3)
    })

    step('4: Patroni', async () => {
      await startsPatroni(site.host('db1'))
      await on(['db2', 'db3'], startsPatroniOf)
      await site.settled(...FIRST_DATABASES)
    })

    const startsPatroniOf = (host: ClusterHost): Promise<void> => startsPatroni(host)

    step('no account of a database host is the superuser by its local name alone', async () => {
      const { ending } = await site
        .host('db1')
        .machine.run('psql', '-U', 'postgres', '-h', '/var/run/postgresql', '-c', '')
      expect(ending?.code).not.toBe(0)
    })

    step('no database refuses a connection that Patroni makes', async () => {
      for (const { machine } of site.databases) {
        const journal = await machine.must('journalctl', '--no-pager', '-o', 'cat', '-u', 'patroni.service')
        const refused = linesOf(journal).filter(line => line.includes('no pg_hba.conf entry'))
        expect(refused).toEqual([])
      }
    })

    step('5, 6, 7: the database, and the first POP3 host', async () => {
      await (await site.leader()).sh(stepOf('createdb'))
      const host = site.host('pop1')
      await installsPackage(host)
      const [, init = ''] = linesOf(stepOf('auth-relay init'))
      await host.sh(init)
      const lines = block(PATH_OF_CLUSTER, 'require_sync', 'toml')
      // The steps on a busy machine may take longer than the default of 30 minutes.
      const text = `${withSettings(await host.machine.must('cat', SETTINGS), lines)}\n[grants]\nexp_time = "1d"`
      host.machine.write(SETTINGS, `${text}\n`)
      const expected = {
        ...parse(lines),
        database: { dbhost: FIRST_DATABASES.map(name => ADDRESSES[name]).join(), require_sync: true },
      }
      expect(parse(text)).toMatchObject(expected)
      await givesLogin(host)
      await host.sh(`(umask 077 && echo 'postgres of this test' > /etc/auth-relay/postgres.pass)`)
      const printed = await host.sh(stepOf('auth-relay migrate'))
      expect(printed).toMatch(/^Migrated from schema 0 to \d+\.$/m)
    })

    step('8: another POP3 host, and an SMTP host', async () => {
      const heading = 'Add a POP3 or SMTP host'
      const first = site.host('pop1')
      const settings = await first.machine.must('cat', SETTINGS)
      for (const [name, password, off, start] of [
        ['pop2', 'dbpass', block(heading, 'policy_listen', 'toml'), block(heading, 'auth-relay-popup')],
        ['smtp1', 'wrap-dbpass', block(heading, '[popup]', 'toml'), block(heading, 'auth-relay-wrap')],
      ] as const) {
        const host = site.host(name)
        await installsPackage(host)
        host.machine.write(SETTINGS, `${withSettings(settings, off)}\n`)
        for (const each of [password, 'status-dbpass']) {
          const path = `/etc/auth-relay/${each}`
          host.machine.write(path, `${await first.machine.must('cat', path)}\n`)
        }
        if (name === 'pop2') await givesLogin(host)
        if (name === 'smtp1') {
          await host.machine.install('postfix')
          await host.sh(`
            postconf -e inet_interfaces=all mydestination=smtp1.example mynetworks=127.0.0.0/8
            postconf -e 'smtpd_relay_restrictions = permit_mynetworks, check_policy_service { inet:127.0.0.1:10040, default_action=DUNNO }, reject_unauth_destination'
            systemctl restart postfix.service`)
        }
        await host.sh(start)
        expect(await host.machine.answer('auth-relay', 'status')).toMatch(/^ +grants +\d+, allowances /m)
      }
      early = await site.opensRelay('pop1')
      await site.opensRelay('pop2')
      expect(await first.machine.must('auth-relay', 'check', '--quiet')).toMatch(/^Safe\.$/m)
    })

    step('9: a switchover', async () => {
      const before = await site.leader()
      expect(await before.sh(stepOf('switchover'))).toContain('Successfully switched over')
      expect(await site.settled(...FIRST_DATABASES)).not.toBe(before.name)
      await site.mayRelay(early)
      await site.opensRelay('pop2')
    })
  })

  describe('Faults', () => {
    step(
      'after a failure of the leader’s host the standby is the leader, earlier grants count, and logins open the relay',
      async () => {
        const failed = await site.leader()
        await failed.fail()
        const address = site.newAddress()
        expect(await site.logsIn(address, 'pop1')).toBe(true)
        await site.mayRelay(early)
        await site.mayRelay(address)
        await site.opensRelay('pop2')
        expect((await site.leader()).name).not.toBe(failed.name)

        await failed.boot()
        expect(await site.settled(...FIRST_DATABASES)).not.toBe(failed.name)
        await site.mayRelay(early)
      },
    )

    step('a standby that does not join is copied again', async () => {
      const standby = (await site.members()).find(({ Role }) => Role !== 'Leader')?.Member ?? ''
      const reinit = sentence('Faults', /^patronictl reinit /)
      expect(reinit).toContain(' db2 ')
      const { name } = await site.leader()
      await site.host('db1').sh(reinit.replace(' db2 ', ` ${standby} `))
      expect(await site.settled(...FIRST_DATABASES)).toBe(name)
      await site.opensRelay('pop1')
    })
  })
  describe('Upgrade', () => {
    step('auth-relay, one host after the other', async () => {
      const [install = '', migrate = '', restart = '', ...others] = linesOf(block('Upgrade', 'apt-get install'))
      expect(others).toEqual([])
      for (const name of MAIL_HOSTS) {
        const { machine } = site.host(name)
        const daemon = `auth-relay-${name === 'smtp1' ? 'wrap' : 'authd'}.service`
        const pid = () => machine.must('systemctl', 'show', '-P', 'MainPID', daemon)
        const before = await pid()
        // An upgrade to the same version has the same steps.
        const output = await site.host(name).sh(install.replace('apt-get install', 'apt-get install --reinstall'))
        expect(output).toMatch(/^The database has schema (\d+), this version knows \1\.$/m)
        expect(await pid()).not.toBe(before)
        if (name === 'pop1') {
          expect(await site.host(name).sh(migrate)).toContain('The database is up to date')
          expect(await site.host(name).sh(restart)).toContain('The database has schema')
        }
        await site.mayRelay(early)
      }
      await site.opensRelay('pop1')
    })

    step('PostgreSQL: the standbys, a switchover, the former leader', async () => {
      const restart = sentence('Upgrade', /^patronictl restart /)
      expect(restart).toContain(' db2 ')
      const former = await site.leader()
      const restarted = async (name: HostName): Promise<void> => {
        const since = () => site.host(name).psql('SELECT pg_postmaster_start_time()')
        const before = await since()
        await site.host('db1').sh(restart.replace(' db2 ', ` ${name} `))
        await site.settled(...FIRST_DATABASES)
        expect(await since()).not.toBe(before)
      }
      for (const name of FIRST_DATABASES.filter(each => each !== former.name)) await restarted(name)
      const switchover = sentence('Upgrade', /^patronictl switchover/)
      await site.host('db1').sh(`${switchover} --force`)
      expect(await site.settled(...FIRST_DATABASES)).not.toBe(former.name)
      await restarted(former.name)
      await site.mayRelay(early)
    })
  })

  describe('Back up', () => {
    const [drop = '', create = '', restore = ''] = linesOf(block('Back up', 'pg_restore'))

    step('a dump of a standby, restored on the leader', async () => {
      const leader = await site.leader()
      const standby = site.databases.find(({ name }) => name !== leader.name)
      if (standby === undefined) throw new Error('there is no standby')
      await standby.sh(block('Back up', 'pg_dump'))
      await programs('stop')
      const address = site.newAddress()
      expect(await site.logsIn(address, 'pop2')).toBe(true)
      leader.machine.copyIn(standby.machine.path('/var/backups/pop3authd.dump'), '/var/backups/pop3authd.dump')
      await leader.sh(`${drop}\n${create}\n${restore}`)
      await site.host('pop1').sh(migration())
      await programs('start')
      await site.mayRelay(early)
      await site.mayRelay(address)
      await site.opensRelay('pop1')
    })
  })

  describe('Add a database host', () => {
    const heading = 'Add a database host'
    const whole = ['db1', 'db2', 'db4'] as const

    step('db4 takes the place of db3, whose disk is lost', async () => {
      await site.host('db3').fail()
      const db4 = site.host('db4')
      await db4.boot()
      await installDatabase(db4)
      const db1 = site.host('db1')
      const list = await db1.sh(sentence(heading, /^etcdctl member list$/))
      const [, id = ''] = /^([0-9a-f]+), started, db3,/m.exec(list) ?? []
      await db1.sh(sentence(heading, /^etcdctl member remove /).replace(/ ID$/, ` ${id}`))
      const printed = await eventually(
        'etcd accepts the member',
        () => db1.sh(block(heading, 'etcdctl member add')),
        SETTLES,
        500,
      )
      const [, members = ''] = /^ETCD_INITIAL_CLUSTER="?([^"\n]*)"?$/m.exec(printed) ?? []
      expect(members.split(',').sort().join()).toBe(whole.map(name => `${name}=http://${ADDRESSES[name]}:2380`).join())
      const state = sentence(heading, /^ETCD_INITIAL_CLUSTER_STATE=existing$/)
      const etcd = changed('etcd', db4, release)
        .replace(/^ETCD_INITIAL_CLUSTER=.*$/m, `ETCD_INITIAL_CLUSTER=${members}`)
        .replace(/^ETCD_INITIAL_CLUSTER_STATE=.*$/m, state)
      db4.machine.write('/etc/default/etcd', etcd)
      await db4.sh(stepOf('systemctl enable etcd'))

      const withDb4 = (yaml: string): string => yaml.replaceAll(`- ${ADDRESSES.db3}:2379`, `- ${ADDRESSES.db4}:2379`)
      await startsPatroni(db4, withDb4(changed('patroni.yml', db4, release)))
      await site.settled(...whole)
    })

    step('the other hosts get the address of db4', async () => {
      for (const name of ['db1', 'db2'] as const) {
        const { machine } = site.host(name)
        const path = '/etc/patroni/config.yml'
        const yaml = await machine.must('cat', path)
        machine.write(path, `${yaml.replaceAll(`- ${ADDRESSES.db3}:2379`, `- ${ADDRESSES.db4}:2379`)}\n`)
      }
      for (const name of MAIL_HOSTS) {
        await site.host(name).sh(`sed -i '/^dbhost = /s/${ADDRESSES.db3}/${ADDRESSES.db4}/' ${SETTINGS}`)
      }
      const [reload = '', authd = '', wrap = ''] = linesOf(block(heading, 'patronictl reload'))
      await site.host('db1').sh(reload)
      await on(['pop1', 'pop2'], host => host.sh(authd))
      await on(['smtp1'], host => host.sh(wrap))
      await site.mayRelay(early)
      await site.settled(...whole)
      await site.opensRelay('pop2')
    })
  })

  describe('Remove the cluster', () => {
    step('the database moves to a single server', async () => {
      const single = site.host('single')
      await single.boot()
      const version = release === 'bookworm' ? '15' : '17'
      await single.sh(`
        echo "listen_addresses = '*'" > /etc/postgresql/${version}/main/conf.d/tests.conf
        echo 'host all all 192.0.2.0/24 scram-sha-256' >> /etc/postgresql/${version}/main/pg_hba.conf
        systemctl restart postgresql
        cd / && runuser -u postgres -- psql -c "ALTER ROLE postgres PASSWORD 'postgres of this test'"`)
      await programs('stop')
      const address = site.newAddress()
      expect(await site.logsIn(address, 'pop1')).toBe(true)
      const leader = await site.leader()
      await leader.sh(block('Back up', 'pg_dump'))
      single.machine.copyIn(leader.machine.path('/var/backups/pop3authd.dump'), '/var/backups/pop3authd.dump')
      const [, create = '', restore = ''] = linesOf(block('Back up', 'pg_restore'))
      expect(sectionOfDocument('CLUSTER', 'Remove the cluster').text).toContain('`require_sync = false`')
      for (const name of MAIL_HOSTS) {
        await site
          .host(name)
          .sh(
            `sed -i 's/^dbhost = .*/dbhost = "${single.ip}"/; s/^require_sync = .*/require_sync = false/' ${SETTINGS}`,
          )
      }
      await single.sh(`${create}\n${restore}`)
      await site.host('pop1').sh(migration())
      await programs('start')
      await on(['db1', 'db2', 'db4'], host => host.sh(block('Remove the cluster', 'systemctl')))
      await site.mayRelay(early)
      await site.mayRelay(address)
      await site.opensRelay('pop2')
    })
  })
}
