import type { IpAddress } from '../../wire/ip-address.ts'
import type { SessionId } from '../../wire/session-ticket.ts'

/** Who is at the other end of a connection, as far as we believe it. */
export type Client = {
  readonly id: SessionId
  readonly ip: IpAddress
  readonly port: number | undefined
  readonly localIp: IpAddress | undefined
  readonly localPort: number | undefined
  readonly tls: boolean
  /** The proxy that spoke for the client. */
  readonly proxyIp: IpAddress | undefined
}
