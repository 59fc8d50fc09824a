import { socketAddress, text } from './rows.ts'
import { defineSection } from './section.ts'

export const STATUS_PAGE = defineSection(
  'status-page',
  'A page for the browser of whoever runs this host; it shows and changes nothing.',
  {
    listen: socketAddress(
      '',
      'Where it is served: a loopback address, e.g. "127.0.0.1:8110", or unix:/run/auth-relay/status/page.sock for root alone. Whoever can connect reads logins and addresses. Empty: no page.',
    ),
    user: text('auth-relay-status', 'Account of the process that serves it.'),
  },
)
