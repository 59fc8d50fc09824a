import { copyFileSync, cpSync, existsSync, mkdirSync } from 'node:fs'
import { copyCheckout } from '../checkout.ts'
import { eventually } from '../eventually.ts'
import { type Program, run } from '../processes/program.ts'
import { temporaryDirectory } from '../temporary-directory.ts'
import { DebianMachine, DOCKER, minimalSystem, PODMAN, ROOTLESS_DOCKER } from './debian-machine.ts'
import type { NetworkNamespace } from './network-namespace.ts'

const root = new URL('../../..', import.meta.url).pathname
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
/** Directory of the checkout in the machine. */
const CHECKOUT = '/srv/auth-relay'
/** The account that runs containers without root. */
const ROOTLESS = 'rootless'

/**
 * Images that the Containerfile and the compose file name. The test makes them from Debian 13, so
 * no registry is needed.
 */
const BASES = {
  debian: 'docker.io/library/debian:trixie-slim',
  node: 'docker.io/library/node:24-trixie-slim',
  postgres: 'docker.io/library/postgres:17-trixie',
} as const

/** The differences between the container engines of Debian 13. */
const ENGINES = {
  podman: {
    packages: PODMAN,
    storage: '/var/lib/containers',
    import: ['podman', 'import', '-q'],
    // The health check is an extension of docker's image format.
    build: ['podman', 'build', '--format', 'docker'],
    compose: 'podman-compose',
    nameOf: (service: string) => `container_${service}_1`,
    imageHealthCheck: '{{json .HealthCheck}}',
    rootlessStorage: '.local/share/containers',
    save: ['podman', 'save', '-m', 'localhost/auth-relay', BASES.postgres],
  },
  docker: {
    packages: DOCKER,
    storage: '/var/lib/docker',
    import: ['docker', 'import'],
    build: ['docker', 'build'],
    compose: 'docker compose',
    nameOf: (service: string) => `container-${service}-1`,
    imageHealthCheck: '{{json .Config.Healthcheck}}',
    rootlessStorage: '.local/share/docker',
    save: ['docker', 'save', 'auth-relay', BASES.postgres],
  },
} as const
export type EngineName = keyof typeof ENGINES

/**
 * A Debian 13 with podman and podman-compose, or with docker and its compose plugin, and the base
 * images of auth-relay.
 */
export class ContainerHost {
  readonly machine: DebianMachine
  readonly engine: EngineName

  private constructor(machine: DebianMachine, engine: EngineName) {
    this.machine = machine
    this.engine = engine
  }

  static async boot(host: NetworkNamespace, engine: EngineName): Promise<ContainerHost> {
    const machine = await DebianMachine.boot(host, 'trixie')
    const { packages, storage } = ENGINES[engine]
    // An overlay file system cannot hold the upper layer of another overlay.
    await machine.sh(`mkdir -p ${storage} && mount -t tmpfs tmpfs ${storage}`)
    await machine.install(...packages)
    // The test may run on a host where root cannot raise limits, or where the kernel does not count
    // processes in a cgroup of version 2. docker sets no such limits by default.
    if (engine === 'podman') {
      machine.write(
        '/etc/containers/containers.conf',
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\npids_limit = 0\n',
      )
    }
    const containers = new ContainerHost(machine, engine)
    await containers.#importBases()
    copyCheckout(machine.path(CHECKOUT))
    return containers
  }

  /** Runs podman or docker, and waits until it ends. */
  run(...words: readonly string[]): Promise<Program> {
    return this.machine.run(this.engine, ...words)
  }

  /** Runs a command in the container of a service of the compose file. */
  inContainer(service: string, ...words: readonly string[]): Promise<Program> {
    return this.run('exec', this.#nameOf(service), ...words)
  }

  /**
   * Signals the first process of a service's container. After any signal by `docker kill`, docker
   * does not start the container again when docker itself starts (restart: unless-stopped).
   */
  async signal(service: string, name: string): Promise<void> {
    await this.machine.must('kill', '-s', name, await this.state(service, '{{.State.Pid}}'))
  }

  /** Lines that a service's container has printed. */
  async logs(service: string): Promise<readonly string[]> {
    return (await this.run('logs', this.#nameOf(service))).lines
  }

  /** The state of a service's container, in a format of `inspect`. */
  async state(service: string, format: string): Promise<string> {
    return (await this.run('inspect', '-f', format, this.#nameOf(service))).lines.join('\n')
  }

  /**
   * The result of a service's health check. podman runs the check now, and docker knows the result
   * of the checks that it runs itself.
   */
  async health(service: string): Promise<string> {
    if (this.engine === 'docker') return await this.state(service, '{{.State.Health.Status}}')
    const { ending } = await this.run('healthcheck', 'run', this.#nameOf(service))
    return ending?.code === 0 ? 'healthy' : ending?.code === 1 ? 'unhealthy' : JSON.stringify(ending)
  }

  /** Builds the image of the checkout from its Containerfile. */
  build(): Promise<string> {
    const file = `${CHECKOUT}/deploy/container/Containerfile`
    return this.machine.must(...ENGINES[this.engine].build, '-t', 'auth-relay', '-f', file, CHECKOUT)
  }

  /** The health check that an image contains, in JSON. */
  async imageHealthCheck(image: string): Promise<string> {
    const { lines } = await this.run('image', 'inspect', '-f', ENGINES[this.engine].imageHealthCheck, image)
    return lines.join('\n')
  }

  /** Runs podman-compose or docker compose on the compose file of the checkout. */
  compose(words: string): Promise<string> {
    const command = ENGINES[this.engine].compose
    return this.machine.sh(`cd ${CHECKOUT}/deploy/container && timeout 400 ${command} ${words}`)
  }

  /** Writes docker's settings and restarts docker. */
  async configureDocker(settings: string): Promise<void> {
    this.machine.write('/etc/docker/daemon.json', settings)
    await this.machine.must('systemctl', 'restart', 'docker')
  }

  /** Writes a secret in the form that the compose file expects. */
  secret(name: string, content: string): void {
    const directory = `${CHECKOUT}/deploy/container/secrets`
    mkdirSync(this.machine.path(directory), { recursive: true })
    this.machine.write(`${directory}/${name}`, content)
  }

  /**
   * Makes an account that may run containers without root. The account gets the images of the test
   * and its own copy of the compose file.
   */
  async allowRootless(): Promise<void> {
    const { rootlessStorage, save } = ENGINES[this.engine]
    const storage = `/home/${ROOTLESS}/${rootlessStorage}`
    await this.machine.sh(`${save.join(' ')} > /var/tmp/images`)
    // The systemd of the account starts its bus only if dbus-user-session was installed before.
    if (this.engine === 'docker') await this.#replaceDocker()
    await this.machine.sh(`
      useradd --create-home ${ROOTLESS}
      loginctl enable-linger ${ROOTLESS}
      mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200
      sysctl -q -w net.ipv4.ip_unprivileged_port_start=110
      cp -r ${CHECKOUT}/deploy/container /home/${ROOTLESS}/container
      mkdir -p ${storage}
      mount -t tmpfs tmpfs ${storage}
      chown -R ${ROOTLESS}: /home/${ROOTLESS}`)
    const bus = this.machine.path(`/run/user/${await this.#rootlessId()}/bus`)
    await eventually('the account has its systemd', () => existsSync(bus))
    if (this.engine === 'docker') await this.#startRootlessDocker()
    await this.rootless(`${this.engine} load -q < /var/tmp/images`)
    await this.machine.sh('rm /var/tmp/images')
  }

  /** Runs a shell script under that account, in the directory of its compose file. */
  async rootless(script: string): Promise<string> {
    const id = await this.#rootlessId()
    const run = `/run/user/${id}`
    const environment = [`HOME=/home/${ROOTLESS}`, `XDG_RUNTIME_DIR=${run}`, `PATH=${PATH}`]
    const sockets = [`DBUS_SESSION_BUS_ADDRESS=unix:path=${run}/bus`, `DOCKER_HOST=unix://${run}/docker.sock`]
    const account = ['setpriv', `--reuid=${id}`, `--regid=${id}`, '--init-groups']
    return this.machine.must(
      ...[...account, 'env', ...environment, ...sockets],
      ...['sh', '-ec', `cd ~/container\n${script}`],
    )
  }

  /** As `compose`, under that account. */
  composeRootless(words: string): Promise<string> {
    return this.rootless(`timeout 400 ${ENGINES[this.engine].compose} ${words}`)
  }

  /** Runs a command in the container of a service that the account has started. */
  inRootlessContainer(service: string, words: string): Promise<string> {
    return this.rootless(`${this.engine} exec ${this.#nameOf(service)} ${words}`)
  }

  /** Lines that a service's container has printed, if the account has started it. */
  async rootlessLogs(service: string): Promise<readonly string[]> {
    return (await this.rootless(`${this.engine} logs ${this.#nameOf(service)} 2>&1`)).split('\n')
  }

  /** Restarts the docker of the account with lines in a drop-in of its unit. */
  async configureRootlessDocker(lines: string): Promise<void> {
    await this.rootless(`directory=~/.config/systemd/user/docker.service.d
      mkdir -p $directory
      printf '[Service]\\n%s\\n' '${lines}' > $directory/override.conf
      systemctl --user daemon-reload
      systemctl --user restart docker`)
  }

  /** Stops the docker of root, and installs what docker needs without root. */
  async #replaceDocker(): Promise<void> {
    await this.machine.must('systemctl', 'stop', 'docker.socket', 'docker', 'containerd')
    await this.machine.install(...ROOTLESS_DOCKER, 'passt')
  }

  async #startRootlessDocker(): Promise<void> {
    const units = '.config/systemd/user'
    await this.rootless(`mkdir -p ~/${units}`)
    this.machine.write(`/home/${ROOTLESS}/${units}/docker.service`, ROOTLESS_DOCKER_UNIT)
    await this.rootless('systemctl --user daemon-reload; systemctl --user start docker')
  }

  #rootlessId(): Promise<string> {
    return this.machine.must('id', '-u', ROOTLESS)
  }

  #nameOf(service: string): string {
    return ENGINES[this.engine].nameOf(service)
  }

  async #importBases(): Promise<void> {
    await this.#import(minimalSystem('trixie'), BASES.debian)
    await this.#buildNode()
    await this.#buildPostgres()
  }

  async #import(directory: string, image: string): Promise<void> {
    const pack = 'tar -C "$1" --exclude=./var/cache/apt/archives/* -c . | { shift; exec "$@"; }'
    const load = ['sh', '-c', pack, 'sh', directory, ...this.machine.prefix, ...ENGINES[this.engine].import, '-', image]
    const { ending, lines } = await run(load, { env: { PATH } })
    if (ending?.code !== 0) throw new Error(`import of ${image}:\n${lines.join('\n')}`)
  }

  /**
   * The Node.js of this checkout and the npm of this host. The cache of npm holds the packages of
   * the lock file and nothing else.
   */
  async #buildNode(): Promise<void> {
    const { path, remove } = temporaryDirectory()
    try {
      for (const name of ['package.json', 'package-lock.json', '.npmrc']) copyFileSync(root + name, `${path}/${name}`)
      const env = { PATH: `${PATH}:/usr/local/bin`, HOME: process.env['HOME'] }
      const fetch = ['npm', 'ci', '--ignore-scripts', '--cache', `${path}/npm-cache`]
      const { ending, lines } = await run(fetch, { cwd: path, env })
      if (ending?.code !== 0) throw new Error(`npm ci:\n${lines.join('\n')}`)
      const npm = (await run(['npm', 'root', '--global'], { cwd: '/', env })).lines[0] ?? ''
      const context = this.machine.path('/var/tmp/node')
      mkdirSync(context)
      copyFileSync(process.execPath, `${context}/node`)
      cpSync(`${npm}/npm`, `${context}/npm`, { recursive: true, verbatimSymlinks: true })
      cpSync(`${path}/npm-cache/_cacache`, `${context}/npm-cache/_cacache`, { recursive: true })
    } finally {
      remove()
    }
    this.machine.write('/var/tmp/node/npmrc', 'offline=true\ncache=/npm-cache\n')
    this.machine.write('/var/tmp/node/Dockerfile', NODE)
    await this.machine.must(this.engine, 'build', '-q', '-t', BASES.node, '/var/tmp/node')
    await this.machine.must('rm', '-r', '/var/tmp/node')
  }

  /**
   * An image of the machine's own system, which has a PostgreSQL. It has the parts of the official
   * image's entry point that the compose file uses.
   */
  async #buildPostgres(): Promise<void> {
    this.machine.write('/usr/local/bin/docker-entrypoint.sh', POSTGRES)
    await this.machine.sh(`chmod 755 /usr/local/bin/docker-entrypoint.sh
      tar -C / --one-file-system --exclude=./var/cache/apt --exclude=./var/lib/apt --exclude=./srv -c . |
      ${ENGINES[this.engine].import.join(' ')} --change 'ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:${PATH}' \\
        --change 'ENTRYPOINT ["docker-entrypoint.sh"]' - ${BASES.postgres}`)
  }
}

/**
 * The unit as dockerd-rootless-setuptool.sh of docker.io writes it. That program refuses a kernel
 * that has the tables of packets built in and no modules.
 */
const ROOTLESS_DOCKER_UNIT = `[Service]
Environment=PATH=/usr/share/docker.io/contrib:${PATH}
ExecStart=/usr/share/docker.io/contrib/dockerd-rootless.sh
Delegate=yes
Type=notify
NotifyAccess=all
KillMode=mixed
`

const NODE = `FROM ${BASES.debian}
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY npmrc /usr/local/etc/npmrc
COPY npm-cache /npm-cache
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
`

const POSTGRES = `#!/bin/sh
set -e
data=/var/lib/postgresql/data
if [ ! -e $data/PG_VERSION ]; then
  chown postgres $data
  install -o postgres -m 600 "$POSTGRES_PASSWORD_FILE" /tmp/password
  runuser -u postgres -- initdb -D $data --auth-local=trust --auth-host=scram-sha-256 --pwfile=/tmp/password
  echo 'host all all all scram-sha-256' >> $data/pg_hba.conf
  echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | runuser -u postgres -- postgres --single -D $data postgres
fi
install -d -o postgres /var/run/postgresql
exec runuser -u postgres -- postgres -D $data -c 'listen_addresses=*' -c unix_socket_directories=/var/run/postgresql
`
