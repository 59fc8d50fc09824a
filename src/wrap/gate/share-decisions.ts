import type { IpAddress } from '../../wire/ip-address.ts'
import type { Decision } from '../decision.ts'

/**
 * Those who ask about one address while a question about it is on its way share the answer. Nothing
 * is kept after it: a revoked address is refused at its
 * next connection.
 */
export function shareDecisions(
  decide: (ip: IpAddress | undefined) => Promise<Decision>,
): (ip: IpAddress | undefined) => Promise<Decision> {
  const open = new Map<IpAddress | undefined, Promise<Decision>>()
  return ip => {
    const known = open.get(ip)
    if (known !== undefined) return known
    const question = decide(ip).finally(() => open.delete(ip))
    open.set(ip, question)
    return question
  }
}
