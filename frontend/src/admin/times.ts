// Days as somebody picks them, where they are, as times for the API.

const at = (day: string, time: string) => (day ? new Date(`${day}T${time}`).toISOString() : undefined);

export const startOf = (day: string) => at(day, "00:00:00");
export const endOf = (day: string) => at(day, "23:59:59");
