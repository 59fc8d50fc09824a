import type { Settings } from '../daemon/settings/settings.ts'
import { policyOf } from '../grants/policy-of.ts'
import type { IpAddress } from '../wire/ip-address.ts'

/** Says by these settings why no login can open the relay for an address; undefined if one can. */
export function loginRefusal(settings: Settings): (ip: IpAddress) => string | undefined {
  const { neverList } = policyOf(settings)
  return ip => neverList.loginRefusal(ip)
}
