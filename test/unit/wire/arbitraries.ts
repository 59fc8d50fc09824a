import fc from 'fast-check'
import { type IpAddress, readAddress } from '../../../src/wire/ip-address.ts'

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })

/** Any address of either family, in canonical form. */
export const anyIpAddress: fc.Arbitrary<IpAddress> = fc.oneof(bytes(4), bytes(16)).map(readAddress)
