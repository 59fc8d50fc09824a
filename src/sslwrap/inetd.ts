/** sslwrap for one client on descriptors 0 and 1, in front of a server or of a program. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { EXIT, UsageFault } from '../base/errors.ts'
import { createLog, DailyHints } from '../base/log.ts'
import { ConnectionLimits, WaitingConnections } from '../process/connection-limits.ts'
import { dropPrivileges, forbidInspection, idsOf } from '../process/privileges.ts'
import { rotateTicketKeys } from '../tunnel/ticket-keys.ts'
import { type Environment, localIpOf, ownEnvironment, portOf, remoteIpOf } from '../ucspi/environment.ts'
import { CustomerNetworks } from '../wire/customer-networks.ts'
import { parseSocketIp } from '../wire/ip-address.ts'
import { sessionId } from '../wire/login-event.ts'
import { type Plan, readMaterials, serveOrder } from './plan.ts'
import type { ClientEndpoints, Secured } from './services.ts'
import { BackEndUnavailable, connectBackEnd, servicesOf } from './services.ts'
import { serveClient } from './session.ts'

/**
 * Serves the one client on descriptors 0 and 1 (tcpserver, inetd), in front of a server or of a
 * program. The program gets AUTHRELAY_TLS=1 and the inherited UCSPI variables, which describe the
 * client. Returns the exit status.
 * @throws UsageFault
 */
export async function serveStandardInput(
  plan: Plan,
  program: readonly string[] | undefined,
  user: string | undefined,
): Promise<number> {
  const environment = ownEnvironment()
  forbidInspection()
  const materials = readMaterials(plan)
  const order = serveOrder(plan, materials, { ids: undefined, ticketKeys: rotateTicketKeys(), workers: 1, place: 0 })
  const [service] = servicesOf(order)
  const [listener] = plan.listeners
  if (service === undefined || listener === undefined) throw new TypeError('a plan without a listener')
  const ids = user === undefined ? undefined : idsOf(user, '-user')
  // A program that needs root (a checker) must start before root is dropped. It reads nothing until
  // the handshake is complete.
  const early =
    ids === undefined || program === undefined ? undefined : startProgram(program, programEnvironment(environment))
  // A failure is reported after the handshake. Until then it must not count as unhandled.
  early?.catch(() => {})
  if (ids !== undefined) dropPrivileges(ids)
  const raw = openStandardInput()
  const open =
    program === undefined
      ? () => connectBackEnd(listener.backend, plan.connectLimit)
      : async (client: Secured) => early ?? startProgram(program, programEnvironment(environment, client))
  try {
    await serveClient(
      raw,
      {
        service: { ...service, open },
        limits: new ConnectionLimits(1, 1, new CustomerNetworks()),
        handshakes: new WaitingConnections(),
        hints: new DailyHints(),
        log: createLog('sslwrap', { level: plan.logLevel }),
        nextId: () => sessionId(process.pid, 1),
      },
      endsOf(raw, environment),
    )
  } finally {
    // A program that got no client waits for the end of its input.
    early?.then(
      unused => unused.destroy(),
      () => {},
    )
  }
  return EXIT.done
}

function openStandardInput(): Socket {
  try {
    return new Socket({ fd: 0, readable: true, writable: true, allowHalfOpen: true })
  } catch (error) {
    throw new UsageFault(
      'standard input is not a connection: run this under tcpserver, or listen yourself with -accept PORT',
      error,
    )
  }
}

/**
 * The ends of the client's connection. The environment overrides the socket, because another proxy
 * may have put the client's own address there.
 */
function endsOf(raw: Socket, environment: Environment): ClientEndpoints {
  const source = remoteIpOf(environment) ?? parseSocketIp(raw.remoteAddress)
  const destination = localIpOf(environment) ?? parseSocketIp(raw.localAddress)
  if (source === undefined || destination === undefined) {
    throw new UsageFault('the client has no address: run this under tcpserver, or listen yourself with -accept PORT')
  }
  return {
    source: { ip: source, port: portOf(environment, 'TCPREMOTEPORT') ?? raw.remotePort ?? 0 },
    destination: { ip: destination, port: portOf(environment, 'TCPLOCALPORT') ?? raw.localPort ?? 0 },
  }
}

/**
 * The environment of the program: the inherited one and the data of TLS, under the names of
 * sslserver and mod_ssl.
 */
function programEnvironment(environment: Environment, client?: Secured): NodeJS.ProcessEnv {
  const inherited = Object.entries(environment).map(([name, value]) => [
    name,
    typeof value === 'string' ? value : Buffer.from(value).toString(),
  ])
  return {
    ...Object.fromEntries(inherited),
    SSL_HACK_PASS: undefined,
    NODE_OPTIONS: undefined,
    AUTHRELAY_TLS: '1',
    SSL_PROTOCOL: client?.socket.getProtocol() ?? undefined,
    SSL_CIPHER: client?.socket.getCipher().name,
    SSL_TLS_SNI_SERVERNAME: client?.servername,
  }
}

/**
 * Starts the program. Its descriptors 0 and 1 are ends of two socket pairs, so that the end of the
 * client's output reaches it.
 * @throws BackEndUnavailable
 */
async function startProgram(program: readonly string[], env: NodeJS.ProcessEnv): Promise<Duplex> {
  const [file = '', ...args] = program
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'], env })
  try {
    await once(child, 'spawn')
  } catch (error) {
    throw new BackEndUnavailable(`cannot run ${file}`, { cause: error })
  }
  const stream = Duplex.from({ readable: child.stdout, writable: child.stdin })
  stream.on('error', () => {})
  return stream
}
