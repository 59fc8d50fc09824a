import { spawnSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants } from 'node:os'
import { checked, lastErrno, nativeFunction, SystemCallError } from '../../../src/libc/native-function.ts'
import { addressBytes, familyOf, type IpAddress, parseIpAddress } from '../../../src/wire/ip-address.ts'

/** Runs ip(8). If the command fails, the test fails with its output. */
function ip(...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${error?.message ?? stderr}`)
  return stdout
}

const NAME = /^ar(?<pid>\d+)-\d+$/
let made = 0

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH')
  }
}

/** Namespaces whose test process was killed before it could remove them. */
function removeOrphans(): void {
  for (const line of ip('netns', 'list').split('\n')) {
    const name = line.split(' ', 1)[0] ?? ''
    const pid = NAME.exec(name)?.groups?.['pid']
    if (pid !== undefined && !isRunning(Number(pid))) spawnSync('ip', ['netns', 'del', name])
  }
}

export const address = (text: string): IpAddress => {
  const parsed = parseIpAddress(text)
  if (parsed === undefined) throw new Error(`not an address: ${text}`)
  return parsed
}

/**
 * A network for one test: one host for the servers, and any number of client hosts, each in a
 * network namespace.
 */
export class TestNetwork {
  readonly server: NetworkNamespace
  readonly #hosts: NetworkNamespace[] = []
  readonly #removeAtExit = (): void => this.remove()

  /** The server's host has these addresses; 192.0.2.0/24 and 2001:db8::/64 reach every host. */
  constructor(...addresses: readonly string[]) {
    removeOrphans()
    process.once('exit', this.#removeAtExit)
    this.server = this.#add()
    // By default a bridge takes the lowest address of its ports, so that a new port could change
    // the address while neighbours use it.
    const fixed = ['address', '02:00:00:00:00:01']
    // With multicast snooping the bridge would drop neighbour solicitations for addresses that are
    // only seconds old.
    ip('-n', this.server.name, 'link', 'add', 'eth0', ...fixed, 'type', 'bridge', 'mcast_snooping', '0')
    ip('-n', this.server.name, 'link', 'set', 'eth0', 'up')
    for (const text of addresses) this.server.addAddress(text)
  }

  /** Adds a host. */
  client(...addresses: readonly string[]): NetworkNamespace {
    const host = this.#add()
    const port = `port${this.#hosts.length}`
    ip('-n', this.server.name, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', host.name)
    ip('-n', this.server.name, 'link', 'set', port, 'master', 'eth0', 'up')
    ip('-n', host.name, 'link', 'set', 'eth0', 'up')
    for (const text of addresses) host.addAddress(text)
    return host
  }

  /**
   * Removes the network. A namespace with running processes loses its name, and ends when they end.
   */
  remove(): void {
    process.off('exit', this.#removeAtExit)
    for (const { name } of this.#hosts.splice(0)) spawnSync('ip', ['netns', 'del', name])
  }

  #add(): NetworkNamespace {
    made += 1
    const host = new NetworkNamespace(`ar${process.pid}-${made}`)
    ip('netns', 'add', host.name)
    this.#hosts.push(host)
    ip('-n', host.name, 'link', 'set', 'lo', 'up')
    return host
  }
}

const CLONE_NEWNET = 0x40000000
const AF_INET = 2
const AF_INET6 = 10
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000
const SOL_SOCKET = 1
const SO_SNDTIMEO = 21
const setns = nativeFunction('int setns(int fd, int type)')
const socket = nativeFunction('int socket(int domain, int type, int protocol)')
const setsockopt = nativeFunction('int setsockopt(int fd, int level, int name, const void *value, uint32_t size)')
const bind = nativeFunction('int bind(int fd, const void *address, uint32_t size)')
const connect = nativeFunction('int connect(int fd, const void *address, uint32_t size)')

/** One host of a TestNetwork. */
export class NetworkNamespace {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  /** Words before a command, so that it runs on this host. */
  get prefix(): readonly string[] {
    return ['ip', 'netns', 'exec', this.name]
  }

  addAddress(text: string): void {
    const isV4 = familyOf(address(text)) === 4
    ip('-n', this.name, 'addr', 'add', `${text}/${isV4 ? 24 : 64}`, 'dev', 'eth0', ...(isV4 ? [] : ['nodad']))
  }

  /**
   * A TCP connection from this host, made by the test process, which enters the namespace only to
   * make the socket. `from` is one of the host's addresses.
   */
  connect(to: { readonly host: string; readonly port: number; readonly from?: string | undefined }): Socket {
    const home = openSync('/proc/thread-self/ns/net', 'r')
    const namespace = openSync(`/run/netns/${this.name}`, 'r')
    try {
      checked('setns', setns(namespace, CLONE_NEWNET))
      return new Socket({ fd: connected(to), readable: true, writable: true })
    } finally {
      checked('setns', setns(home, CLONE_NEWNET))
      closeSync(home)
      closeSync(namespace)
    }
  }
}

function connected(to: { readonly host: string; readonly port: number; readonly from?: string | undefined }): number {
  const host = address(to.host)
  const fd = checked('socket', socket(familyOf(host) === 4 ? AF_INET : AF_INET6, SOCK_STREAM_CLOEXEC, 0))
  try {
    const fiveSeconds = Buffer.alloc(16)
    fiveSeconds.writeBigInt64LE(5n)
    checked('setsockopt', setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, fiveSeconds, fiveSeconds.length))
    if (to.from !== undefined) {
      const own = socketAddress(address(to.from), 0)
      checked(`bind ${to.from}`, bind(fd, own, own.length))
    }
    const peer = socketAddress(host, to.port)
    while (connect(fd, peer, peer.length) === -1) {
      const { EINTR, EISCONN } = constants.errno
      const errno = lastErrno()
      if (errno === EISCONN) break
      if (errno !== EINTR) throw new SystemCallError(`connect ${to.host}:${to.port}`, errno)
    }
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** sockaddr_in or sockaddr_in6, ip(7) and ipv6(7). */
function socketAddress(host: IpAddress, port: number): Buffer {
  const isV4 = familyOf(host) === 4
  const bytes = Buffer.alloc(isV4 ? 16 : 28)
  bytes.writeUInt16LE(isV4 ? AF_INET : AF_INET6)
  bytes.writeUInt16BE(port, 2)
  bytes.set(addressBytes(host), isV4 ? 4 : 8)
  return bytes
}
