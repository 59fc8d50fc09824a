import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { EXIT, UsageFault } from '../base/errors.ts'
import { createLog, DailyHints } from '../base/log.ts'
import { ConnectionLimits, WaitingConnections } from '../process/connection-limits.ts'
import { dropPrivileges, forbidInspection, idsOf } from '../process/privileges.ts'
import { rotateTicketKeys } from '../tunnel/tls-contexts.ts'
import { type Environment, localIpOf, ownEnvironment, portOf, remoteIpOf } from '../ucspi/environment.ts'
import { CustomerNetworks } from '../wire/customer-networks.ts'
import { parseIpAddress } from '../wire/ip-address.ts'
import { sessionId } from '../wire/login-event.ts'
import { type Plan, readMaterials, serveOrder } from './plan.ts'
import type { Ends, Secured } from './services.ts'
import { BackEndUnavailable, connectBackEnd, servicesOf } from './services.ts'
import { serveClient } from './session.ts'

/**
 * Serves the one client on descriptors 0 and 1 (tcpserver, inetd), in front of a connection or of a
 * program. The program learns of TLS by AUTHRELAY_TLS=1 and of the client by the UCSPI variables
 * that were there before. Answers the exit status.
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
  // A program that needs root (a checker) is started before root is dropped; it still waits for the
  // handshake.
  const early =
    ids === undefined || program === undefined ? undefined : startProgram(program, programEnvironment(environment))
  if (ids !== undefined) dropPrivileges(ids)
  const raw = openStandardInput()
  const open =
    program === undefined
      ? () => connectBackEnd(listener.backend, plan.connectLimit)
      : async (client: Secured) => early ?? startProgram(program, programEnvironment(environment, client))
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
  return EXIT.done
}

function openStandardInput(): Socket {
  try {
    return new Socket({ fd: 0, readable: true, writable: true, allowHalfOpen: true })
  } catch (error) {
    throw new UsageFault(
      'standard input is no connection: run this under tcpserver, or listen yourself with -accept PORT',
      error,
    )
  }
}

/**
 * The environment counts before the socket: another proxy may have put the client's own address
 * there.
 */
function endsOf(raw: Socket, environment: Environment): Ends {
  const source = remoteIpOf(environment) ?? parseIpAddress(raw.remoteAddress ?? '')
  const destination = localIpOf(environment) ?? parseIpAddress(raw.localAddress ?? '')
  if (source === undefined || destination === undefined) {
    throw new UsageFault('the client has no address: run this under tcpserver, or listen yourself with -accept PORT')
  }
  return {
    source: { ip: source, port: portOf(environment, 'TCPREMOTEPORT') ?? raw.remotePort ?? 0 },
    destination: { ip: destination, port: portOf(environment, 'TCPLOCALPORT') ?? raw.localPort ?? 0 },
  }
}

/**
 * The variables of the program, with the TLS data; the names are those of sslserver and mod_ssl.
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
 * Each of its descriptors 0 and 1 is one end of a socket pair, so that half-close reaches it.
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
