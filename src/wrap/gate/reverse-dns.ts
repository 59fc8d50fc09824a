/** Names of clients' addresses, from the DNS. */
import { Resolver } from 'node:dns/promises'
import { type IpAddress, parseIpAddress } from '../../wire/ip-address.ts'

/**
 * Returns the name of a client's address in lower case. Undefined if no valid host name comes in
 * time. Never rejects.
 */
export type ReverseDns = (ip: IpAddress) => Promise<string | undefined>

/**
 * Makes a ReverseDns that queries `servers`, or the name servers of the system, with a deadline in
 * milliseconds. `forward`: the name must resolve to the address (tcpserver -p).
 */
export function reverseDns(deadlineMs: number, forward: boolean, servers: readonly string[] = []): ReverseDns {
  return async ip => {
    const resolver = new Resolver({ timeout: deadlineMs, tries: 1 })
    if (servers.length > 0) resolver.setServers(servers)
    const timer = setTimeout(() => resolver.cancel(), deadlineMs)
    try {
      const [name] = await resolver.reverse(ip)
      if (name === undefined || !/^[A-Za-z0-9_.-]{1,255}$/.test(name)) return undefined
      if (forward) {
        const addresses = await (ip.includes(':') ? resolver.resolve6(name) : resolver.resolve4(name))
        if (!addresses.some(address => parseIpAddress(address) === ip)) return undefined
      }
      return name.replace(/\.$/, '').toLowerCase()
    } catch {
      // There is no name or no reachable name server. UCSPI then leaves the variable out.
      return undefined
    } finally {
      clearTimeout(timer)
    }
  }
}
